package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// jobIssuer gives ID tokens to jobs, as a CI service does.
type jobIssuer struct {
	*httptest.Server
	t *testing.T

	mu   sync.Mutex
	keys map[string]*ecdsa.PrivateKey // by id
	down bool
}

func newJobIssuer(t *testing.T) *jobIssuer {
	t.Helper()
	i := &jobIssuer{t: t, keys: map[string]*ecdsa.PrivateKey{}}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

func (i *jobIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var answer any
	switch {
	case i.down:
		w.WriteHeader(http.StatusBadGateway)
		return
	case r.URL.Path == "/.well-known/openid-configuration":
		answer = map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/keys"}
	case r.URL.Path == "/keys":
		answer = map[string]any{"keys": i.published()}
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		i.t.Error(err)
	}
}

func (i *jobIssuer) published() (list []map[string]string) {
	for id, key := range i.keys {
		point, err := key.PublicKey.Bytes() // 4, x, y
		if err != nil {
			i.t.Error(err)
		}
		list = append(list, map[string]string{
			"kid": id, "kty": "EC", "crv": "P-256", "use": "sig", "x": base64url(point[1:33]), "y": base64url(point[33:]),
		})
	}
	return list
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// rotate has the issuer sign with a new key; the others go.
func (i *jobIssuer) rotate(id string) {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = map[string]*ecdsa.PrivateKey{id: key}
}

func (i *jobIssuer) setDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// token is the ID token of a job of acme/app on main, with some claims changed.
func (i *jobIssuer) token(change map[string]any) string {
	i.t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": i.URL, "aud": "berth", "sub": "repo:acme/app", "iat": now, "nbf": now, "exp": now + 300,
		"repository": "acme/app", "ref": "refs/heads/main",
	}
	maps.Copy(claims, change)
	payload, err := json.Marshal(claims)
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for id, key := range i.keys {
		text := base64url([]byte(fmt.Sprintf(`{"alg":"ES256","kid":%q}`, id))) + "." + base64url(payload)
		digest := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			i.t.Fatal(err)
		}
		var signature [64]byte
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
		return text + "." + base64url(signature[:])
	}
	i.t.Fatal("the issuer has no key")
	return ""
}

// TestWorkloads has a CI job push with nothing but its ID token.
func TestWorkloads(t *testing.T) {
	m, issuer := startManaged(t), newJobIssuer(t)
	issuer.rotate("one")
	m.admin("project", "create", "acme", "--visibility", "private")
	m.admin("trust", "add", "release", "--project", "acme", "--role", "writer", "--issuer", issuer.URL, "--audience", "berth",
		"--claim", "repository=acme/*", "--claim", "ref=refs/heads/main")

	t.Run("crane", func(t *testing.T) {
		crane := newClient(t, "crane")
		crane.run("auth", "login", m.host(), "-u", "oidc", "-p", issuer.token(nil))
		layer := crane.file("one.tar", layerTar("one", stuff{600, 300_000}.bytes()))
		crane.run("append", "--oci-empty-base", "-f", layer, "-t", m.host()+"/acme/app:v1")
		crane.run("validate", "--remote", m.host()+"/acme/app:v1")
	})
	t.Run("rights", func(t *testing.T) {
		m := m.in(t)
		good := issuer.token(nil)
		m.basic("oidc", good, "GET", "/v2/acme/app/manifests/v1", http.StatusOK)
		m.basic("oidc", good, "DELETE", "/v2/acme/app/manifests/v1", http.StatusForbidden)
		m.basic("oidc", good, "POST", "/v2/other/app/blobs/uploads/", http.StatusForbidden)
		m.basic("someone", good, "GET", "/v2/", http.StatusUnauthorized)
		for _, change := range []map[string]any{
			{"ref": "refs/heads/evil"}, {"repository": "other/app"}, {"aud": "other"}, {"iss": "https://token.example.com"},
			{"exp": time.Now().Unix() - 120}, {"iat": time.Now().Unix() + 120},
		} {
			m.basic("oidc", issuer.token(change), "GET", "/v2/", http.StatusUnauthorized)
		}
		m.wantQuiet(good)
	})
	t.Run("rotation", func(t *testing.T) {
		m := m.in(t)
		old := issuer.token(nil)
		issuer.rotate("two")
		m.basic("oidc", issuer.token(nil), "GET", "/v2/", http.StatusOK)
		m.basic("oidc", old, "GET", "/v2/", http.StatusUnauthorized)
	})
	t.Run("a token of the registry ends with its rule", func(t *testing.T) {
		m := m.in(t)
		q := url.Values{"service": {m.host()}, "scope": {"repository:acme/app:pull"}}
		var answer struct{ Token string }
		body := m.basic("oidc", issuer.token(nil), "GET", "/auth/token?"+q.Encode(), http.StatusOK)
		if err := json.Unmarshal(body, &answer); err != nil {
			t.Fatal(err)
		}
		for _, want := range []int{http.StatusOK, http.StatusUnauthorized} {
			res, err := m.call("GET", "/v2/acme/app/manifests/v1", nil, []string{"Authorization", "Bearer " + answer.Token}, want)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if want == http.StatusOK {
				m.admin("trust", "remove", "release", "--project", "acme")
			}
		}
	})
}

// TestWorkloadIssuerIsDown: nobody is let in, the answer says that it is not
// the job's fault, and the log says so once.
func TestWorkloadIssuerIsDown(t *testing.T) {
	m, issuer := startManaged(t), newJobIssuer(t)
	issuer.rotate("one")
	issuer.setDown(true)
	m.admin("project", "create", "acme", "--visibility", "private")
	m.admin("trust", "add", "release", "--project", "acme", "--role", "writer", "--issuer", issuer.URL, "--audience", "berth",
		"--claim", "repository=acme/app")
	for range 3 {
		m.basic("oidc", issuer.token(nil), "GET", "/v2/", http.StatusServiceUnavailable)
		m.basic("oidc", issuer.token(nil), "GET", "/auth/token?service="+m.host(), http.StatusServiceUnavailable)
	}
	if text := m.log.tail(); strings.Count(text, "identity provider cannot be used") != 1 || !strings.Contains(text, issuer.URL) {
		t.Errorf("the log is:\n%s", text)
	}
}
