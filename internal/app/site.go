package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/apihttp"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/audit/recorder"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/authhttp"
	"github.com/berth-registry/berth/internal/clientaddr"
	"github.com/berth-registry/berth/internal/config"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/jobs"
	"github.com/berth-registry/berth/internal/limit"
	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/metrics"
	"github.com/berth-registry/berth/internal/ocihttp"
	"github.com/berth-registry/berth/internal/oidc"
	"github.com/berth-registry/berth/internal/policy"
	"github.com/berth-registry/berth/internal/registry"
	"github.com/berth-registry/berth/internal/requestid"
	"github.com/berth-registry/berth/internal/tracing"
)

// issuer names this registry in the tokens that it makes for itself.
const issuer = "berth"

// site is what stands between requests and a store: who the caller is, what it
// may do and how much, what is recorded of it, and the fronts.
type site struct {
	config *config.Config
	store  *store
	server string // its version, for those who ask
	log    *slog.Logger

	directory *directory.Directory
	tokens    *auth.Tokens
	callers   *auth.Authenticator
	policy    *policy.Policy
	limits    *limit.Limiter
	trail     *recorder.Recorder
	metrics   *metrics.Metrics
	tracer    *tracing.Tracer // nil: requests are not traced
	observers []registry.Observer
	jobs      *jobs.Runner // which the caller of newSite runs
	proxies   *proxies
	ready     *readiness
	handler   http.Handler

	background sync.WaitGroup
	stop       context.CancelFunc
}

// newSite builds a site over an opened store and starts what it does beside
// requests. The caller closes it after the last request, before the store.
func newSite(ctx context.Context, c *config.Config, st *store, version string, log *slog.Logger) (_ *site, err error) {
	s := &site{config: c, store: st, server: version, log: log, directory: directory.New(st.db), ready: &readiness{store: st, log: log}, metrics: st.metrics}
	if err := s.trace(ctx); err != nil {
		return nil, err
	}
	s.directory.OnLook(s.metrics.Cache("directory"))
	if err := s.knowCallers(ctx); err != nil {
		return nil, err
	}
	s.policy = policy.New(s.directory, st.db, policy.Options{
		Newcomers: access.Newcomers(c.Projects.Newcomers), ReadOnly: c.ReadOnly,
		Reserved: func(project string) bool { return c.ReservedProject(project) != "" || st.isCache(project) },
	})
	s.limits = limit.New(s.directory, st.db, limit.Options{Log: log})
	s.trail = recorder.New(st.db, recorder.Options{Log: log, Status: ocihttp.Status})
	s.showState()
	if s.proxies, err = newProxies(ctx, c, st, log); err != nil {
		return nil, errors.Join(err, s.trail.Close(ctx))
	}
	s.jobs = jobs.New(jobs.Options{Store: st.db, Log: log, OnRun: st.metrics.Job, Jobs: []jobs.Job{collecting(c, st, log), s.upkeeping(), s.proxies.evicting()}})
	s.proxies.evict = s.soon(evictJob)
	root, err := s.routes()
	if err != nil {
		s.proxies.close()
		return nil, errors.Join(err, s.trail.Close(ctx))
	}
	s.handler = s.traced(s.metrics.Running(clientaddr.New(c.TrustedProxies()).Handler(root)))
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.background.Go(func() { s.limits.Run(ctx) })
	s.background.Go(func() { s.keepSigning(ctx) })
	s.background.Go(func() { s.proxies.run(ctx) })
	if c.Admin.Listen != "" {
		s.background.Go(func() { s.sample(ctx) })
	}
	return s, nil
}

// closeWithin ends what runs beside requests and writes what waits.
func (s *site) closeWithin(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	s.stop()
	s.background.Wait()
	s.proxies.close()
	s.callers.Close()
	s.limits.Close(ctx)
	if err := s.trail.Close(ctx); err != nil {
		s.log.Error("the audit trail is not complete", "error", err)
	}
	s.endTraces(ctx)
}

// knowCallers makes what tells callers apart.
func (s *site) knowCallers(ctx context.Context) (err error) {
	db := s.store.db
	s.tokens, err = auth.NewTokens(ctx, auth.TokenOptions{
		Store: db, Issuer: issuer, Services: []string{auth.ServiceOf(s.config.URLs())},
		TTL: s.config.Auth.TokenTTL, Rotation: s.config.Auth.KeyRotation,
	})
	if err != nil {
		return err
	}
	workloads := oidc.NewWorkloads(oidc.WorkloadOptions{Store: db, Log: s.log})
	s.callers = auth.NewAuthenticator(auth.Options{
		Directory: s.directory, Tokens: s.tokens, Failures: db, TouchKeys: db.TouchKeys,
		Open: s.open(), Exchange: workloads.Exchange, Log: s.log,
	})
	return nil
}

// open says whether callers without credentials may do everything.
func (s *site) open() func(context.Context) (bool, error) {
	switch {
	case s.config.InsecureAnonymous:
		return func(context.Context) (bool, error) { return true, nil }
	case asksForLogin(s.config):
		return nil
	}
	return func(ctx context.Context) (bool, error) {
		guarded, err := s.directory.Guarded(ctx)
		return err == nil && !guarded, err
	}
}

// asksForLogin reports whether log-in is asked for even while nobody could:
// because it is to be, or because others than this machine come here, be it
// through a proxy.
func asksForLogin(c *config.Config) bool {
	return !c.InsecureAnonymous && (c.Auth.Mode == "required" || !isLoopback(c.Listen) || proxied(c))
}

// proxied reports whether a proxy seems to stand in front.
func proxied(c *config.Config) bool {
	return c.HTTP.TrustedProxies != "" || slices.ContainsFunc(c.URLs(), func(base string) bool {
		u, err := url.Parse(base)
		return err != nil || !isLoopback(u.Host)
	})
}

// routes joins the fronts.
func (s *site) routes() (http.Handler, error) {
	challenges, err := auth.NewChallenges(auth.ServiceOf(s.config.URLs()), s.config.URLs())
	if err != nil {
		return nil, err
	}
	challenges.AlsoAt(s.proxies.serves)
	people, err := s.people()
	if err != nil {
		return nil, err
	}
	return &root{
		oci: s.proxies.routed(ocihttp.New(ocihttp.Options{
			Open: s.registryFor, Identify: s.identify, MayPush: s.mayPush, Challenge: challenges.Value,
			Log: s.log, BodyIdle: s.config.HTTP.BodyIdle,
			Redirect: redirects(s.config), RedirectTTL: s.config.Storage.S3.RedirectTTL,
			Answered: s.answered,
		})),
		api: s.metrics.Counted("api", apihttp.New(apihttp.Options{
			Manage: s.manager(), Identify: s.identify, Log: s.log, Version: s.server,
		}), answeredElsewhere),
		tokens: s.metrics.Counted("token", authhttp.New(authhttp.Options{
			Authenticator: s.callers, Tokens: s.tokens, Refresh: s.refresh(),
			Allow: s.policy.Allow, Record: s.trail.Record, Log: s.log, Repository: s.proxies.repository,
		}), answeredElsewhere),
		people: people,
		ready:  http.HandlerFunc(s.ready.public),
	}, nil
}

// CheckConfig finds what is wrong with a configuration and shows only where it
// is used: in what is sent to clients.
func CheckConfig(c *config.Config) error {
	if _, err := auth.NewChallenges(auth.ServiceOf(c.URLs()), c.URLs()); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	if o := bucketOf(c); o.Bucket != "" {
		if err := o.Check(); err != nil {
			return fmt.Errorf("storage.s3: %w", err)
		}
	}
	if o := c.Auth.OIDC; o.Issuer != "" {
		if _, err := oidc.NewPeople(oidc.PeopleOptions{Issuer: o.Issuer, ClientID: o.ClientID}); err != nil {
			return fmt.Errorf("auth.oidc: %w", err)
		}
	}
	return nil
}

// people is the log-in of people at an identity provider, nil where there is
// none.
func (s *site) people() (http.Handler, error) {
	o := s.config.Auth.OIDC
	if o.Issuer == "" {
		return nil, nil
	}
	secret := ""
	if o.ClientSecretFile != "" {
		text, err := os.ReadFile(o.ClientSecretFile)
		if err != nil {
			return nil, err
		}
		secret = strings.TrimSpace(string(text))
	}
	base := strings.TrimRight(s.config.URL, "/")
	return oidc.NewPeople(oidc.PeopleOptions{
		Issuer: o.Issuer, ClientID: o.ClientID, ClientSecret: secret,
		NameClaim: o.NameClaim, GroupsClaim: o.GroupsClaim,
		BaseURL: func(*http.Request) string { return base }, Store: s.store.db, Record: s.trail.Record, Log: s.log,
	})
}

func (s *site) refresh() *auth.Refresh {
	if !s.config.Auth.RefreshTokens {
		return nil
	}
	return auth.NewRefresh(auth.RefreshOptions{Store: s.store.db, Authenticator: s.callers, TTL: s.config.Auth.RefreshTTL})
}

func (s *site) manager() *manage.Manager {
	return manage.New(manage.Options{
		Store: s.store.db, Directory: s.directory, Passwords: s.callers, ValidateRule: s.validateRule,
		Refused:    func(_ context.Context, e audit.Event) { s.trail.Record(e) },
		Newcomers:  access.Newcomers(s.config.Projects.Newcomers),
		Restorable: s.config.Projects.Retention,
		Proxies:    managedCaches{s.proxies},
	})
}

// validateRule says what is wrong with a trust rule. An issuer on this machine
// is for a registry that serves this machine alone: whoever owns a project must
// not make the server knock on doors that are closed to others.
func (s *site) validateRule(r access.TrustRule) error {
	if strings.HasPrefix(r.Issuer, "http://") && !isLoopback(s.config.Listen) {
		return fmt.Errorf("issuer %.100q: must be an https:// URL", r.Issuer)
	}
	return oidc.ValidateRule(r)
}

// registryFor is the registry as a caller may see and use it.
func (s *site) registryFor(id auth.Identity) registry.Registry {
	before, after, bytes := s.limits.For(id)
	guarded := registry.Guard(live{s.proxies, decided(s.policy.Behind(id))}, decided(before), decided(s.policy.For(id)), decided(after))
	return registry.Observe(guarded, append(s.observers, s.trail.Observer(), bytes)...)
}

// mayPush reports whether the policy lets a caller push to a repository.
func (s *site) mayPush(ctx context.Context, id auth.Identity, repo string) (bool, error) {
	allowed, err := s.policy.Allow(ctx, id, auth.Scope{Type: "repository", Name: repo, Actions: []string{"push"}})
	return len(allowed) > 0, available(err)
}

// decided is a check that can say that the database does not answer.
func decided(check registry.Check) registry.Check {
	return func(ctx context.Context, op registry.Op) error { return available(check(ctx, op)) }
}

// identify says who sent a request, in the registry's codes. Credentials that
// are refused leave a record, as they do where tokens are to be had.
func (s *site) identify(r *http.Request) (auth.Identity, error) {
	id, err := s.callers.Identify(r)
	switch {
	case err == nil && id.Kind == access.Local && !s.config.InsecureAnonymous && foreign(r, s.proxies.serves):
		return auth.Identity{}, &registry.Error{Code: registry.Unauthorized, Err: auth.ErrCredentials,
			Detail: "pages of other sites may not use this registry; use localhost, or --auth required and log in"}
	case err == nil:
		return id, nil
	}
	caller := &audit.Caller{Request: requestid.Of(r), Agent: r.UserAgent()}
	if from := auth.AddressOf(r); from.IsValid() {
		caller.Address = from.String()
	}
	if e, refused := authhttp.Refused(caller, err); refused {
		s.trail.Record(e)
	}
	return id, coded(err)
}

// coded gives an error of identification its code.
func coded(err error) error {
	var throttled *auth.ThrottledError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &throttled):
		return &registry.Error{Code: registry.TooManyRequests, Err: err,
			Detail: "too many failed log-ins; wait and try again", Limit: &registry.Limit{RetryAfter: throttled.RetryAfter}}
	case errors.Is(err, auth.ErrUnavailable):
		return &registry.Error{Code: registry.Unavailable, Err: err, Detail: "the issuer of the ID token cannot be reached; try again"}
	case errors.Is(err, auth.ErrCredentials):
		return &registry.Error{Code: registry.Unauthorized, Err: err}
	}
	return available(err)
}

// available gives an error of a database that does not answer its code.
func available(err error) error {
	if errors.Is(err, access.ErrUnavailable) && registry.CodeOf(err) == registry.Internal {
		return &registry.Error{Code: registry.Unavailable, Err: err, Detail: "the registry's database is not available; try again"}
	}
	return err
}
