package oidc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/meta"
)

const (
	loginTime  = 10 * time.Minute // from the first page to the provider's answer
	codeTime   = 2 * time.Minute  // from there until the client takes its key
	defaultKey = 30 * 24 * time.Hour
)

// The paths of the handler.
const (
	LoginPath    = "/auth/login"
	CallbackPath = "/auth/callback"
	KeyPath      = "/auth/login/key"
)

// UserStore keeps log-ins and users; *meta.DB is one.
type UserStore interface {
	SaveLogin(ctx context.Context, id, document string, expires time.Time) error
	TakeLogin(ctx context.Context, id string) (string, error)
	LogInUser(ctx context.Context, p meta.ProvidedUser) (access.Subject, error)
	CreateLoginKey(ctx context.Context, k access.Key, hash string) (user string, err error)
}

// PeopleOptions of NewPeople. The rest of what has no default here is required.
type PeopleOptions struct {
	Issuer       string // URL
	ClientID     string
	ClientSecret string   // "": a public client
	NameClaim    string   // "": preferred_username, which email stands in for
	GroupsClaim  string   // "": groups
	Scopes       []string // besides openid; nil: profile, email and, where it exists, groups
	// BaseURL is where the client of a request reaches the server, without a
	// slash at its end.
	BaseURL func(*http.Request) string
	Store   UserStore
	// KeyLifetime is how long a key from a log-in is valid; 0: 30 days.
	KeyLifetime time.Duration
	Client      *http.Client // as of WorkloadOptions
	// Record is told of log-ins that came to nothing; it must not wait. nil:
	// nobody is. Those that succeed are recorded as they do.
	Record func(audit.Event)
	Log    *slog.Logger
	Now    func() time.Time // the clock; nil is time.Now
}

// People serves the log-in of people at an identity provider, for clients that
// leave with a key. It is safe for concurrent use.
//
// A client makes a secret, the verifier, and opens LoginPath?challenge=C in a
// browser, C being the base64url of its SHA-256; port=N says that it listens on
// 127.0.0.1, name=L what its key shall be called. After the log-in the browser
// goes to http://127.0.0.1:N/?code=X, or shows X; POST of {code, verifier} to
// KeyPath is answered by {user, key, expires_at}.
type People struct {
	o      PeopleOptions
	issuer *issuer
	mux    *http.ServeMux
}

// NewPeople returns a People. It fails on options that can never work, and does
// not contact the provider.
func NewPeople(o PeopleOptions) (*People, error) {
	if err := checkURL(o.Issuer); err != nil {
		return nil, fmt.Errorf("issuer %w", err)
	}
	if o.ClientID == "" {
		return nil, errors.New("client id must not be empty")
	}
	if o.NameClaim == "" {
		o.NameClaim = usualName
	}
	if o.GroupsClaim == "" {
		o.GroupsClaim = "groups"
	}
	if o.KeyLifetime == 0 {
		o.KeyLifetime = defaultKey
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Client = guarded(o.Client)
	p := &People{o: o, mux: http.NewServeMux()}
	p.issuer = &issuer{url: o.Issuer, people: true, client: o.Client, log: o.Log, now: o.Now}
	p.mux.HandleFunc("GET "+LoginPath, p.login)
	p.mux.HandleFunc("GET "+CallbackPath, p.callback)
	p.mux.HandleFunc("POST "+KeyPath, p.key)
	return p, nil
}

// pending is a log-in that is under way at the provider.
type pending struct {
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"` // ours, of the code from the provider
	Browser  string `json:"browser"`  // digest of the cookie of who began it
	Redirect string `json:"redirect"`
	client
}

// client is what waits for the key.
type client struct {
	Port      int    `json:"port,omitempty"` // 0: it has none, and a person carries the code
	Challenge string `json:"challenge"`
	Label     string `json:"label"`
}

// again is where the same log-in begins once more.
func (c client) again() string {
	q := url.Values{"challenge": {c.Challenge}, "name": {c.Label}}
	if c.Port != 0 {
		q.Set("port", strconv.Itoa(c.Port))
	}
	return LoginPath + "?" + q.Encode()
}

// login sends a browser to the provider.
func (p *People) login(w http.ResponseWriter, r *http.Request) {
	c, problem := readClient(r.URL.Query())
	if problem != "" {
		p.fail(w, http.StatusBadRequest, problem, "")
		return
	}
	k, err := p.issuer.know(r.Context(), nil)
	if err != nil {
		p.fail(w, http.StatusServiceUnavailable, "The identity provider cannot be reached.", c.again())
		return
	}
	state, cookie := secret(), secret()
	log := pending{
		Nonce: secret(), Verifier: oauth2.GenerateVerifier(), Browser: digest(cookie),
		Redirect: p.o.BaseURL(r) + CallbackPath, client: c,
	}
	if err := p.save(r.Context(), "state", state, log, loginTime); err != nil {
		p.failStore(w, err, c.again())
		return
	}
	http.SetCookie(w, p.cookie(log.Redirect, state, cookie))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, p.oauth(k, log.Redirect).AuthCodeURL(state,
		gooidc.Nonce(log.Nonce), oauth2.S256ChallengeOption(log.Verifier)), http.StatusFound)
}

var challengeText = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// readClient reads what the client asked the browser to open; a problem is for
// the person in front of it.
func readClient(q url.Values) (c client, problem string) {
	c.Challenge, c.Label = q.Get("challenge"), nameOf(q.Get("name"), "login")
	if !challengeText.MatchString(c.Challenge) {
		return c, "This address is for `berth login`, which opens it by itself."
	}
	if port := q.Get("port"); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return c, "The port in the address is no port."
		}
		c.Port = int(n)
	}
	return c, ""
}

func (p *People) oauth(k *knowledge, redirect string) *oauth2.Config {
	scopes := p.o.Scopes
	if scopes == nil {
		scopes = []string{"profile", "email"}
		if slices.Contains(k.Scopes, "groups") {
			scopes = append(scopes, "groups")
		}
	}
	style := oauth2.AuthStyleInHeader
	if p.o.ClientSecret == "" || slices.Contains(k.TokenAuth, "client_secret_post") && !slices.Contains(k.TokenAuth, "client_secret_basic") {
		style = oauth2.AuthStyleInParams
	}
	return &oauth2.Config{
		ClientID: p.o.ClientID, ClientSecret: p.o.ClientSecret, RedirectURL: redirect,
		Endpoint: oauth2.Endpoint{AuthURL: k.Authorization, TokenURL: k.Token, AuthStyle: style},
		Scopes:   append([]string{gooidc.ScopeOpenID}, scopes...),
	}
}

// cookie binds the log-in with this state to a browser.
func (p *People) cookie(redirect, state, value string) *http.Cookie {
	return &http.Cookie{
		Name: "berth-login-" + digest(state)[:8], Value: value, Path: "/auth/",
		MaxAge: int(loginTime / time.Second), HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: strings.HasPrefix(redirect, "https://"),
	}
}

// save keeps v until it is taken by who knows the secret.
func (p *People) save(ctx context.Context, kind, secret string, v any, valid time.Duration) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return p.o.Store.SaveLogin(ctx, kind+":"+digest(secret), string(text), p.o.Now().Add(valid))
}

// take reads what save kept, once. Errors: access.ErrNotFound.
func (p *People) take(ctx context.Context, kind, secret string, v any) error {
	text, err := p.o.Store.TakeLogin(ctx, kind+":"+digest(secret))
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), v)
}

// secret is 32 random bytes as text.
func secret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// digest stands for a secret in what is stored.
func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
