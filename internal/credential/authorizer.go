package credential

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/registry"
)

const (
	maxTokens    = 1024 // that are kept for one registry
	maxScope     = 1 << 10
	maxRedirects = 3
	refusedFor   = 30 * time.Second // a credential that was refused is not shown again
	provedFor    = time.Minute      // a credential that was taken is not tried again
)

// Options of NewAuthorizer. Upstream is required.
type Options struct {
	// Upstream is the address of the registry, with its path if it has one.
	Upstream *url.URL
	// Realms are hosts (host or host:port) of token services that are trusted
	// although they share no registrable domain with the registry.
	Realms []string
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// Authorizer shows one registry who we are, in the way that it asks for. It
// learns that way from the registry's first refusal and keeps the tokens it was
// given. All its methods may be called at once.
type Authorizer struct {
	source Source
	o      Options
	realms realms
	client *http.Client
	trying chan struct{} // holds one who shows a credential to the registry to see what it says

	mu      sync.Mutex
	way     way
	tokens  tokens
	verdict verdict
}

// way is how a registry wants to be shown credentials. The zero value is not
// known yet.
type way struct {
	scheme string // "basic" or "bearer"
	realm  *url.URL
	// service is what the registry calls itself before the token service.
	service string
	// prefix stands before the names of repositories in scopes.
	prefix string
	// scope is that of all repositories; "": each has its own.
	scope string
}

func (w way) sameService(x way) bool {
	return w.scheme == x.scheme && w.service == x.service && (w.realm == nil) == (x.realm == nil) &&
		(w.realm == nil || w.realm.String() == x.realm.String())
}

// verdict is what a registry thinks of a credential.
type verdict struct {
	of    Credential
	until time.Time
	err   error // nil: it is taken
}

// NewAuthorizer shows what source has to a registry. Requests to its token
// service go through transport.
func NewAuthorizer(source Source, transport http.RoundTripper, o Options) *Authorizer {
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Authorizer{source: source, o: o, realms: realms{o.Upstream, o.Realms}, trying: make(chan struct{}, 1)}
	a.client = &http.Client{Transport: transport, CheckRedirect: sameOrigin}
	return a
}

// sameOrigin lets a token service redirect within itself alone: what it is sent
// are secrets.
func sameOrigin(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errRedirects
	}
	if first := via[0].URL; req.URL.Scheme != first.Scheme || req.URL.Host != first.Host {
		return errElsewhere
	}
	return nil
}

var (
	errRedirects = errors.New("too many redirects")
	errElsewhere = errors.New("redirected to another host")
)

// Authorization returns the value of the Authorization header for a request
// about repo ("" for the catalog), "" for none.
// Errors: Unavailable, TooManyRequests, Faulty; NameUnknown with
// registry.ErrRefused where nobody is told of the repository without credentials.
func (a *Authorizer) Authorization(ctx context.Context, repo string) (string, error) {
	a.mu.Lock()
	w := a.way
	a.mu.Unlock()
	if w.scheme == "bearer" {
		token, err := a.token(ctx, w, repo, true)
		if err != nil {
			return "", about(repo, err)
		}
		return "Bearer " + token, nil
	}
	c, err := a.credential(ctx)
	switch {
	case err != nil:
		return "", about(repo, err)
	case c.Bearer != "" || w.scheme == "basic":
		return c.direct(), a.lately(repo, c)
	}
	return "", nil
}

// Challenged takes in a 401 that the registry itself, not a host that it
// redirected to, answered to a request about repo; sent is the Authorization
// header of that request and header that of the answer. It reports whether the
// request is worth another try, once, with what Authorization returns now. If not
// and without an error, the registry knows who we are and does not let us have
// the repository, or wants credentials that we have none of.
// Errors: as of Authorization.
func (a *Authorizer) Challenged(ctx context.Context, repo, sent string, header http.Header) (retry bool, err error) {
	c, err := a.credential(ctx)
	if err != nil {
		return false, about(repo, err)
	}
	if c.Bearer != "" {
		retry, err = a.reconsider(ctx, c, sent)
		return retry, about(repo, err)
	}
	offered := parseChallenges(header.Values("WWW-Authenticate"))
	bearer, refused := a.bearer(offered)
	switch {
	case bearer != nil:
		retry, err = a.useBearer(ctx, *bearer, repo, sent)
	case c.Password != "" && offers(offered, "basic"):
		a.learn(way{scheme: "basic"})
		retry, err = a.reconsider(ctx, c, sent)
	default:
		err = refused
	}
	return retry, about(repo, err)
}

// bearer is the token service that a registry offers, if it may be used; else
// why not.
func (a *Authorizer) bearer(offered []challenge) (*challenge, error) {
	var refused error
	for _, c := range offered {
		if c.scheme != "bearer" || c.params["realm"] == "" {
			continue
		}
		if _, err := a.realms.check(c.params["realm"]); err == nil {
			return &c, nil
		} else if refused == nil {
			refused = err
		}
	}
	return nil, refused
}

func offers(offered []challenge, scheme string) bool {
	for _, c := range offered {
		if c.scheme == scheme {
			return true
		}
	}
	return false
}

// useBearer gets a token as a challenge says. It is worth another try unless the
// token that was refused was fresh and for the very same.
func (a *Authorizer) useBearer(ctx context.Context, c challenge, repo, sent string) (retry bool, err error) {
	realm, err := a.realms.check(c.params["realm"])
	if err != nil {
		return false, err
	}
	w := way{scheme: "bearer", realm: realm, service: c.params["service"]}
	own := ""
	if scope := c.params["scope"]; len(scope) <= maxScope {
		own = w.learnScope(repo, scope)
	}
	a.learn(w)
	t, changed := a.tokens.prepare(w.key(repo), w.scopeOf(repo, own))
	if token, ok := strings.CutPrefix(sent, "Bearer "); ok && !changed {
		if given, dropped := t.drop(token); dropped && given <= 1 {
			return false, nil
		}
	}
	_, err = a.token(ctx, w, repo, false)
	return err == nil, err
}

// learnScope finds out from a challenge how the registry calls what it wants a
// token for. It returns a scope that is of this repository alone, or "".
func (w *way) learnScope(repo, scope string) (own string) {
	name, ok := strings.CutPrefix(scope, "repository:")
	switch {
	case scope == "" || strings.HasPrefix(scope, "registry:"):
		return ""
	case !ok && !strings.Contains(scope, "repository:"):
		w.scope = scope // "*" of Gitea and Forgejo, "aws" of Amazon's public registry
		return ""
	case repo == "":
		return ""
	case !ok || strings.Contains(scope, " "):
		return scope
	}
	name = name[:max(strings.LastIndexByte(name, ':'), 0)]
	prefix, ok := strings.CutSuffix(name, repo)
	if !ok || prefix != "" && !strings.HasSuffix(prefix, "/") {
		return scope
	}
	w.prefix = prefix
	return ""
}

// scopeOf is the scope of what is asked of a token service for repo.
func (w way) scopeOf(repo, own string) string {
	switch {
	case own != "":
		return own
	case w.scope != "":
		return w.scope
	case repo == "":
		return "registry:catalog:*"
	}
	return "repository:" + w.prefix + repo + ":pull"
}

// key is that of a repository's token; where all have one scope, of all.
func (w way) key(repo string) string {
	if w.scope != "" {
		return ""
	}
	return w.prefix + repo
}

// learn keeps the way that the registry asked for last. Tokens of another
// service are of no use any more.
func (a *Authorizer) learn(w way) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.way.sameService(w) {
		a.tokens.clear()
	}
	a.way = w
}

// token is that for a repository, to be used or to be there when it is.
func (a *Authorizer) token(ctx context.Context, w way, repo string, use bool) (string, error) {
	t := a.tokens.of(w.key(repo), w.scopeOf(repo, ""))
	return t.get(ctx, a.o.Now, use, func(ctx context.Context) (string, time.Duration, error) {
		return a.fetch(ctx, w, t.scope)
	})
}

// credential asks the source. Errors: Unavailable.
func (a *Authorizer) credential(ctx context.Context) (Credential, error) {
	c, err := a.source.Credential(ctx)
	if err == nil {
		return c, nil
	}
	code, detail := registry.Unavailable, "no credentials for the registry at %s could be had; try again"
	if errors.Is(err, ErrRefused) {
		code, detail = registry.Faulty, "the credentials for the registry at %s are refused where they are exchanged"
	}
	return c, &registry.Error{Code: code, Detail: fmt.Sprintf(detail, a.o.Upstream.Host), Err: err}
}

// reconsider decides what to do about a credential that is shown to the registry
// itself: either it is wrong, or it is good and of somebody who may not have the
// repository. It is worth another try if another was sent before.
func (a *Authorizer) reconsider(ctx context.Context, c Credential, sent string) (retry bool, err error) {
	fresh, err := a.try(ctx, c)
	if fresh && errors.Is(err, ErrRefused) {
		if next, ok := a.another(ctx, c); ok {
			c = next
			_, err = a.try(ctx, c)
		}
	}
	return err == nil && sent != c.direct(), err
}

// another is a credential that took the place of one that was refused.
func (a *Authorizer) another(ctx context.Context, refused Credential) (next Credential, ok bool) {
	d, ok := a.source.(Dropper)
	if !ok {
		return next, false
	}
	d.Drop(refused)
	next, err := a.source.Credential(ctx)
	return next, err == nil && next != refused
}

// try shows a credential to the registry without asking for anything, unless it
// was just shown. It fails with ErrRefused if it is wrong. Many who want to know
// wait for one.
func (a *Authorizer) try(ctx context.Context, c Credential) (fresh bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	select {
	case a.trying <- struct{}{}:
		defer func() { <-a.trying }()
	case <-ctx.Done():
		return false, a.unreachable("registry", a.o.Upstream, context.Cause(ctx))
	}
	if known, err := a.judged(c); known {
		return false, err
	}
	return true, a.show(ctx, c)
}

// show asks the registry what it thinks of a credential.
func (a *Authorizer) show(ctx context.Context, c Credential) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.o.Upstream.JoinPath("/v2/").String(), nil)
	if err != nil {
		return &registry.Error{Code: registry.Internal, Err: err}
	}
	req.Header.Set("Authorization", c.direct())
	req.Header.Set("User-Agent", userAgent)
	resp, err := a.client.Do(req)
	if err != nil {
		return a.unreachable("registry", a.o.Upstream, err)
	}
	resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return a.judge(c, a.refusal("registry", a.o.Upstream, c))
	case resp.StatusCode < 300:
		return a.judge(c, nil)
	}
	return answered("registry", a.o.Upstream, resp)
}

// refusal is the error for a credential that is wrong.
func (a *Authorizer) refusal(what string, at *url.URL, c Credential) error {
	return &registry.Error{Code: registry.Faulty, Err: ErrRefused,
		Detail: fmt.Sprintf("the %s at %s refuses the configured credentials (%s)", what, shown(at.Host), c)}
}

// judge keeps what the registry thinks of a credential.
func (a *Authorizer) judge(c Credential, err error) error {
	life := provedFor
	if err != nil {
		life = refusedFor
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.verdict = verdict{of: c, until: a.o.Now().Add(life), err: err}
	return err
}

// judged says what the registry thought of a credential a moment ago.
func (a *Authorizer) judged(c Credential) (known bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.verdict.of != c || !a.o.Now().Before(a.verdict.until) {
		return false, nil
	}
	return true, a.verdict.err
}

// lately fails if the credential was refused a moment ago: who shows a wrong
// password again and again is locked out.
func (a *Authorizer) lately(repo string, c Credential) error {
	_, err := a.judged(c)
	return about(repo, err)
}

// about says which repository an error is about.
func about(repo string, err error) error {
	var e *registry.Error
	if !errors.As(err, &e) || e.Repo == repo {
		return err
	}
	named := *e
	named.Repo = repo
	return &named
}
