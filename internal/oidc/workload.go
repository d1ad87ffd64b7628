package oidc

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

const (
	maxIssuers   = 1024 // whose keys are remembered
	maxAudiences = 16   // of a token
)

// RuleStore finds trust rules.
type RuleStore interface {
	// TrustsIssuer reports whether any rule names the issuer.
	TrustsIssuer(ctx context.Context, issuer string) (bool, error)
	// TrustRules lists the rules that name the issuer and the audience.
	TrustRules(ctx context.Context, issuer, audience string) ([]access.TrustRule, error)
	ProjectAccessByID(ctx context.Context, id string) (access.Project, error)
}

// WorkloadOptions of NewWorkloads. Store and Log are required.
type WorkloadOptions struct {
	Store RuleStore
	// Client is what issuers are contacted with; nil is one of its own. Time
	// limit, redirects and cookies are set here.
	Client *http.Client
	Log    *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Workloads lets in jobs by their ID tokens. It is safe for concurrent use.
type Workloads struct {
	o WorkloadOptions

	mu      sync.Mutex
	issuers map[string]*issuer
}

// NewWorkloads returns a Workloads.
func NewWorkloads(o WorkloadOptions) *Workloads {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Client = guarded(o.Client)
	return &Workloads{o: o, issuers: map[string]*issuer{}}
}

// Exchange says whom a job's ID token stands for: the trust rule that admits
// it, of several the one with the highest role. Its errors are
// auth.ErrInvalidToken for a token that is no good or that no rule admits,
// auth.ErrUnavailable where the issuer could not be asked, or the store's. None
// holds the token. The caller adds the address.
func (w *Workloads) Exchange(ctx context.Context, raw string) (access.Principal, error) {
	url, err := issuerOf(raw)
	if err != nil {
		return access.Principal{}, err
	}
	trusted, err := w.o.Store.TrustsIssuer(ctx, url)
	switch {
	case err != nil:
		return access.Principal{}, err
	case !trusted:
		return access.Principal{}, invalid("no trust rule names its issuer %.200q", url)
	}
	token, claims, err := w.issuer(url).verify(ctx, raw, "")
	if err != nil {
		return access.Principal{}, err
	}
	rule, err := w.rule(ctx, url, token.Audience, claims)
	if err != nil {
		return access.Principal{}, err
	}
	p, err := w.o.Store.ProjectAccessByID(ctx, rule.ProjectID)
	if err != nil {
		return access.Principal{}, err
	}
	return access.Principal{Kind: access.Workload, ID: rule.ID, Name: p.Name + "/" + rule.Name}, nil
}

// rule is the best of those that admit a token.
func (w *Workloads) rule(ctx context.Context, issuer string, audiences []string, claims map[string]any) (*access.TrustRule, error) {
	if len(audiences) > maxAudiences {
		return nil, invalid("it has more than %d audiences", maxAudiences)
	}
	var best *access.TrustRule
	for _, audience := range audiences {
		rules, err := w.o.Store.TrustRules(ctx, issuer, audience)
		if err != nil {
			return nil, err
		}
		for n := range rules {
			if r := &rules[n]; admits(r, claims) && better(r, best) {
				best = r
			}
		}
	}
	if best == nil {
		return nil, invalid("no trust rule of %.200q admits its audience and claims", issuer)
	}
	return best, nil
}

func better(r, than *access.TrustRule) bool {
	return than == nil || r.Role > than.Role || r.Role == than.Role && r.ID < than.ID
}

// issuer is the one that a rule names.
func (w *Workloads) issuer(url string) *issuer {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := w.issuers[url]
	if i == nil {
		if len(w.issuers) >= maxIssuers {
			for other := range w.issuers {
				delete(w.issuers, other)
				break
			}
		}
		i = &issuer{url: url, client: w.o.Client, log: w.o.Log, now: w.o.Now}
		w.issuers[url] = i
	}
	return i
}
