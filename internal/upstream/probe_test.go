package upstream_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/authhttp"
	"github.com/berth-registry/berth/internal/blob/memblob"
	"github.com/berth-registry/berth/internal/credential"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/hosted"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/policy"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/remote"
	"github.com/berth-registry/berth/internal/upstream"
)

// probed is a registry with tokens, storage elsewhere and an allowance, which a
// test breaks somewhere: breaks answers what it wants to and reports whether it did.
type probed struct {
	*httptest.Server
	storage *httptest.Server
	breaks  func(w http.ResponseWriter, r *http.Request) bool
	leaked  bool // storage was shown credentials
}

var (
	probeLayer  = []byte(strings.Repeat("layer", 1000))
	probeConfig = []byte("{}")
	probeImage  = imageOf(probeConfig, probeLayer)
	probeIndex  = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		oci.MediaTypeIndex, oci.MediaTypeImage, oci.SHA256.FromBytes(probeImage), len(probeImage))
	probeTag = oci.TagRef("v1")
)

func imageOf(config, layer []byte) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		oci.MediaTypeImage, oci.SHA256.FromBytes(config), len(config), oci.SHA256.FromBytes(layer), len(layer))
}

func newProbed(t *testing.T) *probed {
	p := &probed{breaks: func(http.ResponseWriter, *http.Request) bool { return false }}
	p.storage = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.leaked = p.leaked || r.Header.Get("Authorization") != ""
		if !p.breaks(w, r) {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(probeLayer)))
		}
	}))
	t.Cleanup(p.storage.Close)
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *probed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("RateLimit-Limit", "100;w=21600")
	w.Header().Set("RateLimit-Remaining", "76;w=21600")
	path := strings.TrimPrefix(r.URL.Path, "/v2/team/app/")
	_, password, _ := r.BasicAuth()
	switch {
	case p.breaks(w, r):
	case path == "/token" && password == "secret":
		io.WriteString(w, `{"token":"good"}`)
	case path == "/token":
		w.WriteHeader(http.StatusUnauthorized)
	case r.Header.Get("Authorization") != "Bearer good":
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
	case path == "/v2/":
	case path == "manifests/v1", path == "manifests/"+oci.SHA256.FromBytes(probeIndex).String():
		w.Header().Set("Content-Type", oci.MediaTypeIndex)
		w.Header().Set("Docker-Content-Digest", oci.SHA256.FromBytes(probeIndex).String())
		w.Header().Set("Content-Length", fmt.Sprint(len(probeIndex)))
		w.Write(probeIndex)
	case path == "manifests/"+oci.SHA256.FromBytes(probeImage).String():
		w.Header().Set("Content-Type", oci.MediaTypeImage)
		w.Write(probeImage)
	case path == "blobs/"+oci.SHA256.FromBytes(probeLayer).String():
		w.Header().Set("Location", p.storage.URL+"/signed?secret")
		w.WriteHeader(http.StatusTemporaryRedirect)
	case strings.HasPrefix(path, "referrers/"):
		w.Header().Set("Content-Type", oci.MediaTypeIndex)
		io.WriteString(w, `{"schemaVersion":2,"manifests":[]}`)
	case path == "tags/list":
		io.WriteString(w, `{"tags":["v1"]}`)
	default:
		http.NotFound(w, r)
	}
}

// authorizing gives an endpoint the credentials of source.
func authorizing(source credential.Source) func(*url.URL, http.RoundTripper) (upstream.Authorizer, error) {
	return func(at *url.URL, tokens http.RoundTripper) (upstream.Authorizer, error) {
		return credential.NewAuthorizer(source, tokens, credential.Options{Upstream: at}), nil
	}
}

// probe walks and returns the steps by name, all with their text.
func probe(t *testing.T, o upstream.Options, repo string, ref oci.Ref) (steps map[string]upstream.Step, text string) {
	t.Helper()
	steps = map[string]upstream.Step{}
	open(t, o).Probe(t.Context(), repo, ref, func(s upstream.Step) {
		steps[s.Name] = s
		text += fmt.Sprintf("%s ok=%v skipped=%v: %s -> %s\n", s.Name, s.OK, s.Skipped, s.Detail, s.Advice)
	})
	return steps, text
}

var probeSteps = []string{upstream.StepAddress, upstream.StepPing, upstream.StepLogin, upstream.StepResolve,
	upstream.StepManifest, upstream.StepBlob, upstream.StepReferrers, upstream.StepTags}

func TestProbe(t *testing.T) {
	p := newProbed(t)
	steps, text := probe(t, upstream.Options{Endpoints: []string{p.URL}, Authorize: authorizing(credential.Basic("me", "secret"))}, "team/app", probeTag)
	for _, name := range probeSteps {
		if s := steps[name]; !s.OK || s.Skipped || s.Advice != "" || s.Endpoint != p.URL {
			t.Errorf("%s: %+v", name, s)
		}
	}
	for name, want := range map[string]string{
		upstream.StepAddress:   "connected to 127.0.0.1",
		upstream.StepPing:      "a token of the token service at " + strings.TrimPrefix(p.URL, "http://"),
		upstream.StepLogin:     "user me",
		upstream.StepResolve:   "76 of 100 requests in 6h0m0s are left",
		upstream.StepManifest:  oci.SHA256.FromBytes(probeImage).String(),
		upstream.StepBlob:      "they come from " + strings.TrimPrefix(p.storage.URL, "http://"),
		upstream.StepReferrers: "has the referrers API; 0",
		upstream.StepTags:      "v1",
	} {
		if !strings.Contains(steps[name].Detail, want) {
			t.Errorf("%s does not say %q: %s", name, want, steps[name].Detail)
		}
	}
	if p.leaked || strings.Contains(text, "secret") {
		t.Errorf("credentials went to storage (%v), or into words:\n%s", p.leaked, text)
	}
}

// TestProbeSaysWhatIsWrong: for each thing that is, the step that finds it, and
// what to do.
func TestProbeSaysWhatIsWrong(t *testing.T) {
	at := func(path string, do http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			hit := strings.HasPrefix(r.URL.Path, path) && (path != "/v2/" || r.URL.Path == path)
			if hit {
				do(w, r)
			}
			return hit
		}
	}
	answer := func(status int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
		}
	}
	const repo = "/v2/team/app/"
	for what, c := range map[string]struct {
		breaks  func(http.ResponseWriter, *http.Request) bool
		source  credential.Source
		step    string
		ok      bool // it is no failure
		says    string
		advises string
		goesOn  bool // the steps behind are taken
	}{
		"no registry":        {breaks: at("/v2/", http.NotFound), step: upstream.StepPing, says: "404", advises: "no registry at this address"},
		"elsewhere":          {breaks: at("/v2/", answer(301, "Location", "https://x.example")), step: upstream.StepPing, says: "301", advises: "leads elsewhere"},
		"broken":             {breaks: at("/v2/", answer(502)), step: upstream.StepPing, says: "502", advises: "is broken"},
		"no answer":          {breaks: at("/v2/", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), step: upstream.StepPing, says: "EOF", advises: "can reach it"},
		"foreign realm":      {breaks: at("/v2/", answer(401, "WWW-Authenticate", `Bearer realm="http://evil.example/t"`)), step: upstream.StepLogin, says: "evil.example", advises: ""},
		"wrong password":     {source: credential.Basic("me", "hunter2"), step: upstream.StepLogin, says: "refuses the configured credentials (user me)", advises: "check the user name and the password"},
		"no credentials":     {source: credential.Anonymous(), step: upstream.StepLogin, says: "gives no token without credentials", advises: "configure a credential"},
		"wants a password":   {breaks: at("/v2/", answer(401, "WWW-Authenticate", `Basic realm="x"`)), source: credential.Anonymous(), step: upstream.StepLogin, says: "we are anonymous", advises: "a user name and a password"},
		"token service down": {breaks: at("/token", answer(503)), step: upstream.StepLogin, says: "503", advises: "try again"},
		"asked too much":     {breaks: at(repo+"manifests/", answer(429, "Retry-After", "60")), step: upstream.StepResolve, says: "", advises: "wait 1m0s"},
		"no such tag":        {breaks: at(repo+"manifests/v1", http.NotFound), step: upstream.StepResolve, says: "unknown", advises: "check the names"},
		"not for us":         {breaks: at(repo, answer(403)), step: upstream.StepResolve, says: "403", advises: "if it is private"},
		"no HEAD": {breaks: func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
			}
			return r.Method == http.MethodHead
		}, step: upstream.StepResolve, ok: true, says: "its HEAD says too little", advises: "whole GET", goesOn: true},
		"wrong bytes": {breaks: func(w http.ResponseWriter, r *http.Request) bool {
			wrong := r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/sha256:")
			if wrong {
				w.Header().Set("Content-Type", oci.MediaTypeIndex)
				io.WriteString(w, "{}")
			}
			return wrong
		}, step: upstream.StepManifest, says: "digest", goesOn: true},
		"child gone": {breaks: at(repo+"manifests/"+oci.SHA256.FromBytes(probeImage).String(), http.NotFound), step: upstream.StepManifest, says: "but not the first of those it names", advises: "images of it are gone", goesOn: true},
		"no ranges": {breaks: func(w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		}, step: upstream.StepBlob, ok: true, says: "ranges are not honoured", advises: "begins anew", goesOn: true},
		"private storage":  {breaks: at(repo+"blobs/", answer(307, "Location", "http://10.9.8.7/x?secret")), step: upstream.StepBlob, says: "10.9.8.7", advises: "networks", goesOn: true},
		"blob gone":        {breaks: at("/signed", http.NotFound), step: upstream.StepBlob, says: "", advises: "", goesOn: true},
		"no referrers API": {breaks: at(repo+"referrers/", http.NotFound), step: upstream.StepReferrers, ok: true, says: "uses the referrers tag, which is fine", goesOn: true},
		"referrers broken": {breaks: at(repo+"referrers/", answer(500)), step: upstream.StepReferrers, says: "500", advises: "try again", goesOn: true},
		"no list of tags":  {breaks: at(repo+"tags/", answer(403)), step: upstream.StepTags, says: "403", advises: "pulls do not need this list"},
	} {
		t.Run(what, func(t *testing.T) {
			p := newProbed(t)
			if c.breaks != nil {
				p.breaks = c.breaks
			}
			if c.source == nil {
				c.source = credential.Basic("me", "secret")
			}
			steps, text := probe(t, upstream.Options{Endpoints: []string{p.URL}, Authorize: authorizing(c.source)}, "team/app", probeTag)
			s := steps[c.step]
			if s.OK != c.ok || s.Skipped || !strings.Contains(s.Detail, c.says) || !strings.Contains(s.Advice, c.advises) {
				t.Errorf("%+v", s)
			}
			behind := false
			for _, name := range probeSteps {
				if s := steps[name]; behind && s.Skipped == c.goesOn && (c.step != upstream.StepManifest || name != upstream.StepBlob) || !behind && name != c.step && !s.OK {
					t.Errorf("%s: %+v", name, s)
				}
				behind = behind || name == c.step
			}
			if len(steps) != len(probeSteps) || strings.Contains(text, "hunter2") || strings.Contains(text, "?secret") {
				t.Errorf("steps:\n%s", text)
			}
		})
	}
}

func TestProbeOfAddresses(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for what, c := range map[string]struct {
		o       upstream.Options
		step    string
		skipped bool
		says    string
		advises string
	}{
		"private": {upstream.Options{Endpoints: []string{plain.URL}, Transport: upstream.Transport{Networks: local[1:]}}, upstream.StepAddress, false,
			"127.0.0.1: not a public address", "127.0.0.1/32"},
		"no such name":  {upstream.Options{Endpoints: []string{"https://does-not-exist.invalid"}}, upstream.StepAddress, false, "does-not-exist.invalid", "check the name"},
		"nobody there":  {upstream.Options{Endpoints: []string{"http://" + closed.Addr().String()}}, upstream.StepAddress, false, "refused", "can reach it"},
		"own authority": {upstream.Options{Endpoints: []string{secure.URL}}, upstream.StepPing, false, "certificate", "tls.ca_file"},
		"no TLS":        {upstream.Options{Endpoints: []string{"https" + strings.TrimPrefix(plain.URL, "http")}}, upstream.StepPing, false, "HTTP", "plain_http"},
		"HTTP proxy":    {upstream.Options{Endpoints: []string{"http://registry.example"}, Transport: upstream.Transport{HTTPProxy: plain.URL}}, upstream.StepAddress, true, "HTTP proxy", ""},
	} {
		steps, _ := probe(t, c.o, "team/app", probeTag)
		if s := steps[c.step]; s.OK || s.Skipped != c.skipped || !strings.Contains(s.Detail, c.says) || !strings.Contains(s.Advice, c.advises) {
			t.Errorf("%s: %+v", what, s)
		}
	}
}

// TestProbeOfAllEndpoints: each is walked, and one that fails hides no other.
func TestProbeOfAllEndpoints(t *testing.T) {
	mirror, main := newProbed(t), newProbed(t)
	mirror.breaks = func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(500); return true }
	good := map[string]int{}
	u := open(t, upstream.Options{Endpoints: []string{mirror.URL, main.URL}, Authorize: authorizing(credential.Basic("me", "secret"))})
	u.Probe(t.Context(), "team/app", probeTag, func(s upstream.Step) {
		if s.OK {
			good[s.Endpoint]++
		}
	})
	if good[mirror.URL] != 1 || good[main.URL] != len(probeSteps) {
		t.Errorf("steps that went well: %v", good)
	}
}

func TestProbeWithoutARepository(t *testing.T) {
	p := newProbed(t)
	steps, text := probe(t, upstream.Options{Endpoints: []string{p.URL}, Authorize: authorizing(credential.Basic("me", "secret"))}, "", oci.Ref{})
	if !steps[upstream.StepLogin].OK || !steps[upstream.StepResolve].Skipped || !steps[upstream.StepTags].Skipped {
		t.Error(text)
	}
}

// fill pushes an image as team/app:v1 and returns its digest.
func fill(t *testing.T, to registry.Registry, repo string) oci.Digest {
	t.Helper()
	for _, content := range [][]byte{probeConfig, probeLayer} {
		up, err := to.StartUpload(t.Context(), repo, registry.UploadOptions{})
		if err == nil {
			_, err = up.Commit(t.Context(), 0, strings.NewReader(string(content)), oci.SHA256.FromBytes(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	m := registry.Manifest{MediaType: oci.MediaTypeImage, Digest: oci.SHA256.FromBytes(probeImage), Content: probeImage}
	if _, err := to.PutManifest(t.Context(), repo, m, "v1"); err != nil {
		t.Fatal(err)
	}
	return m.Digest
}

// TestProbeOfDistribution: a registry of the reference implementation that wants
// a password, and has no referrers API.
func TestProbeOfDistribution(t *testing.T) {
	program, err := exec.LookPath("registry")
	if err != nil {
		program, err = exec.LookPath("../../.tools/bin/registry")
	}
	if err != nil {
		t.Skip("no distribution to test against; install it with: GOBIN=$PWD/.tools/bin go install github.com/distribution/distribution/v3/cmd/registry@v3.1.2")
	}
	at := distribution(t, program, "me", "secret")
	pusher, err := remote.New(at, remote.Options{Authorization: remote.Basic("me", "secret")})
	if err != nil {
		t.Fatal(err)
	}
	digest := fill(t, pusher, "team/app")

	steps, text := probe(t, upstream.Options{Endpoints: []string{at}, Authorize: authorizing(credential.Basic("me", "secret"))}, "team/app", probeTag)
	for _, name := range probeSteps {
		if !steps[name].OK {
			t.Errorf("%s: %+v", name, steps[name])
		}
	}
	for name, want := range map[string]string{
		upstream.StepPing: "a user name and a password", upstream.StepResolve: digest.String(), upstream.StepReferrers: "no referrers API",
	} {
		if !strings.Contains(steps[name].Detail, want) {
			t.Errorf("%s does not say %q:\n%s", name, want, text)
		}
	}
	steps, text = probe(t, upstream.Options{Endpoints: []string{at}, Authorize: authorizing(credential.Basic("me", "wrong"))}, "team/app", probeTag)
	if s := steps[upstream.StepLogin]; s.OK || !strings.Contains(s.Detail, "refuses the configured credentials (user me)") {
		t.Error(text)
	}

	// An upstream reads with a password, and not without; with a wrong one it is
	// the upstream that fails, not the repository that is missing.
	for password, check := range map[string]func(error) bool{
		"secret": func(err error) bool { return err == nil },
		"":       func(err error) bool { return errors.Is(err, registry.ErrRefused) },
		"wrong":  func(err error) bool { return registry.IsCode(err, registry.Faulty) },
	} {
		source := credential.Anonymous()
		if password != "" {
			source = credential.Basic("me", password)
		}
		u := open(t, upstream.Options{Endpoints: []string{at}, Authorize: authorizing(source)})
		if _, err := u.Manifest(t.Context(), "team/app", probeTag); !check(err) {
			t.Errorf("with %q: %v", password, err)
		}
	}
}

// distribution runs a registry that has one user.
func distribution(t *testing.T, program, user, password string) (address string) {
	t.Helper()
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := free.Addr().String()
	free.Close()
	settings, err := json.Marshal(map[string]any{
		"version": "0.1", "log": map[string]any{"level": "error", "accesslog": map[string]any{"disabled": true}},
		"http":    map[string]any{"addr": host},
		"storage": map[string]any{"filesystem": map[string]any{"rootdirectory": filepath.Join(dir, "store")}},
		"auth":    map[string]any{"htpasswd": map[string]any{"realm": "x", "path": filepath.Join(dir, "htpasswd")}},
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "htpasswd"), fmt.Appendf(nil, "%s:%s\n", user, hash), 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.yml"), settings, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", filepath.Join(dir, "config.yml"))
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	for {
		if resp, err := http.Get("http://" + host + "/v2/"); err == nil {
			resp.Body.Close()
			return "http://" + host
		}
		select {
		case <-ended:
			t.Fatalf("registry serve ended:\n%s", log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestProbeOfBerth: another Berth, which gives tokens, and tells nobody who may
// not know of what there is.
func TestProbeOfBerth(t *testing.T) {
	at, key := berth(t)
	for what, c := range map[string]struct {
		source credential.Source
		fails  string // the step; "": none
		says   string
	}{
		"with a key":  {credential.Basic("ci", key), "", ""},
		"without":     {credential.Anonymous(), upstream.StepResolve, "refuses"},
		"a wrong key": {credential.Basic("ci", "wrong"), upstream.StepLogin, "refuses the configured credentials (user ci)"},
		"other hands": {credential.Bearer("wrong"), upstream.StepLogin, "refuses the configured credentials (a bearer token)"},
	} {
		t.Run(what, func(t *testing.T) {
			steps, text := probe(t, upstream.Options{Endpoints: []string{at}, Authorize: authorizing(c.source)}, "acme/app", probeTag)
			for _, name := range probeSteps {
				if s := steps[name]; name == c.fails && (s.OK || !strings.Contains(s.Detail, c.says)) || c.fails == "" && !s.OK {
					t.Errorf("%s: %+v", name, s)
				}
			}
			if c.fails == "" && !strings.Contains(steps[upstream.StepReferrers].Detail, "has the referrers API") {
				t.Error(text)
			}
			u := open(t, upstream.Options{Endpoints: []string{at}, Authorize: authorizing(c.source)})
			_, err := u.Manifest(t.Context(), "acme/app", probeTag)
			if (err == nil) != (c.fails == "") {
				t.Errorf("the manifest: %v", err)
			}
		})
	}
}

// berth runs a Berth with project acme, which has an image, and a key of it.
func berth(t *testing.T) (address, key string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db, err := meta.Open(t.Context(), meta.Options{Path: metatest.File(t)})
	must(err)
	t.Cleanup(func() { db.Close() })
	owner, err := db.CreateUser(t.Context(), meta.Change{}, meta.UserSpec{Name: "alice", Password: "x", Admin: true})
	must(err)
	_, err = db.CreateProject(t.Context(), meta.Change{}, meta.ProjectSpec{Name: "acme", Visibility: access.Private, Owner: owner.ID})
	must(err)
	project, err := db.ProjectAccess(t.Context(), "acme")
	must(err)
	key, hash := auth.NewKey(auth.ProjectKey)
	_, err = db.CreateKey(t.Context(), meta.Change{}, access.Key{Name: "ci", ProjectID: project.ID, Role: access.Reader}, hash)
	must(err)
	store := hosted.New(db, memblob.New(), hosted.Options{})
	fill(t, store, "acme/app")

	const service = "berth.test"
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	tokens, err := auth.NewTokens(t.Context(), auth.TokenOptions{Store: db, Issuer: server.URL, Services: []string{service}})
	must(err)
	dir := directory.New(db)
	callers := auth.NewAuthenticator(auth.Options{Directory: dir, Tokens: tokens, Failures: db, TouchKeys: db.TouchKeys})
	t.Cleanup(callers.Close)
	rules := policy.New(dir, db, policy.Options{})
	challenges, err := auth.NewChallenges(service, []string{server.URL})
	must(err)
	mux.Handle(auth.TokenPath, authhttp.New(authhttp.Options{Authenticator: callers, Tokens: tokens, Allow: rules.Allow}))
	mux.Handle("/", ocihttp.New(ocihttp.Options{
		Open: func(id auth.Identity) registry.Registry { return registry.Guard(store, rules.For(id)) },
		Identify: func(r *http.Request) (auth.Identity, error) {
			id, err := callers.Identify(r)
			if err != nil {
				err = &registry.Error{Code: registry.Unauthorized, Err: err}
			}
			return id, err
		},
		Challenge: challenges.Value,
	}))
	return server.URL, key
}
