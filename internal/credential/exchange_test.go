package credential

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

// cloud is a scripted API of a cloud; asked are the requests, with their bodies.
type cloud struct {
	*httptest.Server
	asked  []*http.Request
	bodies []string
}

// newCloud answers each request as script says, which runs alone.
func newCloud(t *testing.T, script http.HandlerFunc) *cloud {
	c := &cloud{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.asked, c.bodies = append(c.asked, r), append(c.bodies, string(body))
		r.Form, _ = url.ParseQuery(string(body))
		script(w, r)
	}))
	t.Cleanup(c.Close)
	return c
}

func exchange(t *testing.T, kind, upstream string, now func() time.Time) Source {
	t.Helper()
	u, err := url.Parse(upstream)
	if err != nil {
		t.Fatal(err)
	}
	source, err := NewExchange(Exchange{Kind: kind, Upstream: u, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return source
}

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// amazon sets the environment of AWS's tools.
func amazon(t *testing.T, endpoint string) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "top-secret", "AWS_SESSION_TOKEN": "session", "AWS_REGION": "",
		"AWS_DEFAULT_REGION": "", "AWS_PROFILE": "", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
		"AWS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL_ECR": "", "AWS_ENDPOINT_URL_ECR_PUBLIC": "", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
}

func TestECR(t *testing.T) {
	issued := 0
	now := noon
	token := func() string {
		issued++
		return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "AWS:token-%d", issued))
	}
	api := newCloud(t, func(w http.ResponseWriter, r *http.Request) {
		form := `{"authorizationData":[{"authorizationToken":%q,"expiresAt":%d.5,"proxyEndpoint":"x"}]}`
		if strings.HasPrefix(r.Header.Get("X-Amz-Target"), "Spencer") {
			form = `{"authorizationData":{"authorizationToken":%q,"expiresAt":%d}}`
		}
		fmt.Fprintf(w, form, token(), now.Add(12*time.Hour).Unix())
	})
	amazon(t, api.URL)
	for upstream, want := range map[string]struct{ scope, target string }{
		"https://123456789012.dkr.ecr.eu-central-1.amazonaws.com":       {"20300101/eu-central-1/ecr/aws4_request", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"},
		"https://123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com": {"20300101/us-gov-west-1/ecr/aws4_request", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"},
		"https://123456789012.dkr-ecr.us-west-2.on.aws":                 {"20300101/us-west-2/ecr/aws4_request", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"},
		"https://public.ecr.aws":                                        {"20300101/us-east-1/ecr-public/aws4_request", "SpencerFrontendService.GetAuthorizationToken"},
	} {
		source := exchange(t, "ecr", upstream, func() time.Time { return now })
		c, err := source.Credential(t.Context())
		if err != nil || c.Username != "AWS" || c.Password != fmt.Sprintf("token-%d", issued) || !c.Expires.Equal(noon.Add(12*time.Hour)) {
			t.Errorf("%s: got %v until %v, %v", upstream, c, c.Expires, err)
			continue
		}
		r := api.asked[len(api.asked)-1]
		signed := r.Header.Get("Authorization")
		if !strings.HasPrefix(signed, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"+want.scope) || !strings.Contains(signed, "x-amz-target") ||
			r.Header.Get("X-Amz-Target") != want.target || r.Header.Get("X-Amz-Security-Token") != "session" ||
			r.Header.Get("Content-Type") != "application/x-amz-json-1.1" || r.Method != http.MethodPost || api.bodies[len(api.bodies)-1] != "{}" {
			t.Errorf("%s: asked with %v", upstream, r.Header)
		}
		// It serves for hours, and is renewed before it ends.
		before := issued
		source.Credential(t.Context())
		now = now.Add(13 * time.Hour)
		if c, err := source.Credential(t.Context()); issued != before+1 || err != nil || c.Password != fmt.Sprintf("token-%d", issued) {
			t.Errorf("%s: %d more tokens, %v, %v", upstream, issued-before, c, err)
		}
		now = noon
	}
}

func TestECREndpoints(t *testing.T) {
	amazon(t, "")
	t.Setenv("AWS_REGION", "eu-west-1")
	for upstream, want := range map[string]string{
		"https://123456789012.dkr.ecr.eu-central-1.amazonaws.com":    "https://api.ecr.eu-central-1.amazonaws.com/",
		"https://123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":   "https://api.ecr.cn-north-1.amazonaws.com.cn/",
		"https://123456789012.dkr.ecr-fips.us-east-1.amazonaws.com":  "https://api.ecr-fips.us-east-1.amazonaws.com/",
		"https://public.ecr.aws":                                     "https://api.ecr-public.us-east-1.amazonaws.com/",
		"https://registry.example.com":                               "https://api.ecr.eu-west-1.amazonaws.com/",
		"https://123456789012.dkr.ecr.eu-central-1.amazonaws.com.ru": "https://api.ecr.eu-west-1.amazonaws.com/",
	} {
		u, _ := url.Parse(upstream)
		var got string
		e := ecrOf(Exchange{Upstream: u, Now: time.Now})
		settings, err := e.settings(t.Context())
		if err == nil {
			got = e.api(settings)
		}
		if got != want {
			t.Errorf("%s: asks %s (%v), want %s", upstream, got, err, want)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL_ECR", "https://vpce.example/")
	e := ecrOf(Exchange{Upstream: &url.URL{Host: "x"}, Now: time.Now})
	if settings, err := e.settings(t.Context()); err != nil || e.api(settings) != "https://vpce.example/" {
		t.Errorf("the endpoint of the environment is not asked: %v", err)
	}
	t.Setenv("AWS_REGION", "")
	if _, err := e.settings(t.Context()); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("without a region: %v", err)
	}
}

func TestECRRefuses(t *testing.T) {
	for body, c := range map[string]struct {
		status  int
		refused bool
		says    string
	}{
		`{"__type":"UnrecognizedClientException","message":"top-secret"}`:             {400, true, "UnrecognizedClientException"},
		`{"__type":"com.amazonaws.ecr#AccessDeniedException","Message":"top-secret"}`: {400, true, "AccessDeniedException"},
		`{"__type":"ThrottlingException"}`:                                            {400, false, "ThrottlingException"},
		`{"__type":"top-secret with spaces"}`:                                         {403, true, "403"},
		`top-secret`:                                                                  {500, false, "500"},
		`{"authorizationData":[]}`:                                                    {200, false, "no token"},
		`{}`:                                                                          {200, false, "no token"},
		`{"authorizationData":[{"authorizationToken":"top-secret"}]}`:                 {200, false, "no sense"},
		`{"authorizationData":[{"authorizationToken":"QVdTOng=","expiresAt":1000000}]}`: {200, false, "ended already"},
		`<top-secret>`: {200, false, "no sense"},
	} {
		api := newCloud(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(c.status)
			io.WriteString(w, body)
		})
		amazon(t, api.URL)
		_, err := exchange(t, "ecr", "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com", nil).Credential(t.Context())
		if err == nil || errors.Is(err, ErrRefused) != c.refused || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "top-secret") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// google sets the environment of Google's libraries.
func googleEnvironment(t *testing.T, keyFile, metadata string) {
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", keyFile)
	t.Setenv("GCE_METADATA_HOST", metadata)
	t.Setenv("HOME", t.TempDir())
	t.Setenv("CLOUDSDK_CONFIG", t.TempDir())
}

func TestGCPKeyFile(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	status := 200
	api := newCloud(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if status != 200 {
			io.WriteString(w, `{"error":"invalid_grant","error_description":"top-secret"}`)
			return
		}
		io.WriteString(w, `{"access_token":"ya29","token_type":"Bearer","expires_in":3600}`)
	})
	content, _ := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "puller@example", "private_key_id": "1", "token_uri": api.URL + "/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	path := filepath.Join(t.TempDir(), "key.json")
	write(t, path, string(content))
	googleEnvironment(t, path, "")
	source := exchange(t, "gcp", "https://europe-docker.pkg.dev", nil)
	c, err := source.Credential(t.Context())
	if err != nil || c.Username != "oauth2accesstoken" || c.Password != "ya29" || c.Expires.IsZero() {
		t.Fatalf("got %v, %v", c, err)
	}
	if grant := api.asked[0].Form.Get("grant_type"); grant != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		t.Errorf("asked for %q", grant)
	}
	claims, _ := base64.RawURLEncoding.DecodeString(strings.Split(api.asked[0].Form.Get("assertion")+"..", ".")[1])
	if !strings.Contains(string(claims), googleScope) || !strings.Contains(string(claims), "puller@example") {
		t.Errorf("asked with %s", claims)
	}
	source.Credential(t.Context())
	if len(api.asked) != 1 {
		t.Errorf("asked %d times", len(api.asked))
	}
	status = 400
	_, err = exchange(t, "gcp", "https://gcr.io", nil).Credential(t.Context())
	if !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "top-secret") || !strings.Contains(err.Error(), "invalid_grant") {
		t.Errorf("refused: %v", err)
	}
}

func TestGCPMetadata(t *testing.T) {
	metadata := newCloud(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		if !strings.HasSuffix(r.URL.Path, "/instance/service-accounts/default/token") || r.Header.Get("Metadata-Flavor") != "Google" {
			w.WriteHeader(404)
			return
		}
		io.WriteString(w, `{"access_token":"ya29","token_type":"Bearer","expires_in":3600}`)
	})
	googleEnvironment(t, "", strings.TrimPrefix(metadata.URL, "http://"))
	c, err := exchange(t, "gcp", "https://gcr.io", nil).Credential(t.Context())
	if err != nil || c.Username != "oauth2accesstoken" || c.Password != "ya29" {
		t.Errorf("got %v, %v", c, err)
	}
}

// azure sets the environment of Azure's SDKs.
func azure(t *testing.T, set map[string]string) {
	for _, name := range []string{"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_SECRET", "AZURE_AUTHORITY_HOST", "AZURE_POD_IDENTITY_AUTHORITY_HOST"} {
		t.Setenv(name, set[name])
	}
}

// TestACR goes the whole way: the cloud's token, the registry's refresh token, and
// a token for a repository.
func TestACR(t *testing.T) {
	assertion := filepath.Join(t.TempDir(), "token")
	write(t, assertion, "assertion\n")
	for what, c := range map[string]struct {
		set  map[string]string
		path string
		form string
	}{
		"the machine's identity": {map[string]string{}, "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fcontainerregistry.azure.net", ""},
		"one of its identities": {map[string]string{"AZURE_CLIENT_ID": "client"},
			"/metadata/identity/oauth2/token?api-version=2018-02-01&client_id=client&resource=https%3A%2F%2Fcontainerregistry.azure.net", ""},
		"a workload": {map[string]string{"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_FEDERATED_TOKEN_FILE": assertion, "AZURE_CLIENT_SECRET": "no"}, "/tenant/oauth2/v2.0/token",
			"client_assertion=assertion&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_id=client&grant_type=client_credentials&scope=https%3A%2F%2Fcontainerregistry.azure.net%2F.default"},
		"a secret": {map[string]string{"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_SECRET": "top-secret"}, "/tenant/oauth2/v2.0/token",
			"client_id=client&client_secret=top-secret&grant_type=client_credentials&scope=https%3A%2F%2Fcontainerregistry.azure.net%2F.default"},
	} {
		t.Run(what, func(t *testing.T) {
			entra := newCloud(t, func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/metadata") && r.Header.Get("Metadata") != "true" {
					w.WriteHeader(400)
					return
				}
				io.WriteString(w, `{"access_token":"entra","expires_in":"3599","token_type":"Bearer"}`)
			})
			x := newWorld(t)
			var exchanged []string
			x.grant = func(w http.ResponseWriter, r *http.Request) {
				if r.PostForm.Get("refresh_token") != "refresh" {
					w.WriteHeader(401)
					return
				}
				x.valid["Bearer final"] = true
				io.WriteString(w, `{"access_token":"final"}`)
			}
			acr := newCloud(t, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/oauth2/exchange":
					exchanged = append(exchanged, r.Form.Encode())
					io.WriteString(w, `{"refresh_token":"refresh"}`)
				default:
					r.PostForm = r.Form
					x.ServeHTTP(w, r)
				}
			})
			x.url, _ = url.Parse(acr.URL)
			c.set["AZURE_AUTHORITY_HOST"], c.set["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = entra.URL+"/", entra.URL
			azure(t, c.set)
			a := x.authorizer(exchange(t, "acr", acr.URL, nil))
			x.want(a, "team/app", 200)
			x.want(a, "team/other", 200)
			if len(entra.asked) != 1 || entra.asked[0].URL.String() != c.path || entra.asked[0].Form.Encode() != c.form {
				t.Errorf("Entra ID was asked %s %v", entra.asked[0].URL, entra.asked[0].Form)
			}
			want := url.Values{"access_token": {"entra"}, "grant_type": {"access_token"}, "service": {"127.0.0.1"}}
			set(want, "tenant", c.set["AZURE_TENANT_ID"])
			if len(exchanged) != 1 || exchanged[0] != want.Encode() {
				t.Errorf("exchanged %q, want %q", exchanged, want.Encode())
			}
			x.wantRequests(2)
		})
	}
}

func TestACRRefuses(t *testing.T) {
	for what, c := range map[string]struct {
		entra, registry string
		entraStatus     int
		registryStatus  int
		refused         bool
		says            string
	}{
		"no identity":    {`{"error":"invalid_request","error_description":"top-secret"}`, ``, 400, 200, true, "invalid_request"},
		"busy":           {`top-secret`, ``, 429, 200, false, "429"},
		"no token":       {`{}`, ``, 200, 200, false, "no token"},
		"no right":       {`{"access_token":"x"}`, `{"errors":[{"code":"UNAUTHORIZED","message":"top-secret"}]}`, 200, 401, true, "UNAUTHORIZED"},
		"broken":         {`{"access_token":"x"}`, `top-secret`, 200, 503, false, "503"},
		"no refresh":     {`{"access_token":"x"}`, `{}`, 200, 200, false, "no refresh token"},
		"led elsewhere":  {`{"access_token":"x"}`, ``, 200, 307, false, "another host"},
		"makes no sense": {`{"access_token":"x"}`, `<html>top-secret`, 200, 200, false, "no sense"},
	} {
		t.Run(what, func(t *testing.T) {
			entra := newCloud(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(c.entraStatus)
				io.WriteString(w, c.entra)
			})
			acr := newCloud(t, func(w http.ResponseWriter, r *http.Request) {
				if c.registryStatus == 307 {
					w.Header().Set("Location", entra.URL+"/elsewhere")
				}
				w.WriteHeader(c.registryStatus)
				io.WriteString(w, c.registry)
			})
			azure(t, map[string]string{"AZURE_POD_IDENTITY_AUTHORITY_HOST": entra.URL})
			_, err := exchange(t, "acr", acr.URL, nil).Credential(t.Context())
			if err == nil || errors.Is(err, ErrRefused) != c.refused || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "top-secret") {
				t.Errorf("got %v", err)
			}
			if len(entra.asked) != 1 {
				t.Errorf("the other host was asked %d times", len(entra.asked))
			}
		})
	}
}

// TestRefusedExchange: who asks for an image is told that it is our credentials.
func TestRefusedExchange(t *testing.T) {
	entra := newCloud(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(400) })
	azure(t, map[string]string{"AZURE_POD_IDENTITY_AUTHORITY_HOST": entra.URL})
	x := newWorld(t)
	if _, err := x.pull(x.authorizer(exchange(t, "acr", x.url.String(), nil)), "a"); !registry.IsCode(err, registry.Faulty) {
		t.Errorf("got %v", err)
	}
}
