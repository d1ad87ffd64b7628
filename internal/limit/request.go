package limit

import (
	"context"
	"errors"
	"sync"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/clientaddr"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/registry"
)

// request counts one HTTP request once.
type request struct {
	limiter         *Limiter
	id              auth.Identity
	caller, project decision
}

// decision is made by the first who asks.
type decision struct {
	once sync.Once
	err  error
}

func (d *decision) make(decide func() error) error {
	d.once.Do(func() { d.err = decide() })
	return d.err
}

func (r *request) before(ctx context.Context, op registry.Op) error {
	return r.caller.make(func() error {
		return r.limiter.allow(ctx, op.Repo, r.limiter.callerRules(ctx, &r.id))
	})
}

func (r *request) after(ctx context.Context, op registry.Op) error {
	if op.Action == registry.RepositoriesList || op.Repo == "" {
		return nil
	}
	return r.project.make(func() error {
		return r.limiter.allow(ctx, op.Repo, r.limiter.projectRules(ctx, op.Repo))
	})
}

func (r *request) observe(ctx context.Context, op registry.Op) func(int64, error) {
	switch op.Action {
	case registry.ManifestRead, registry.BlobRead, registry.BlobRedirect,
		registry.ManifestWrite, registry.BlobWrite, registry.UploadAppend:
	default:
		return transferredNothing
	}
	return func(n int64, err error) {
		if op.Action == registry.BlobRedirect && err == nil {
			n = max(n, op.Size) // nobody sees how much of it is read
		}
		if n > 0 {
			r.charge(context.WithoutCancel(ctx), op.Repo, n)
		}
	}
}

func transferredNothing(int64, error) {}

func (r *request) charge(ctx context.Context, repo string, n int64) {
	l := r.limiter
	for _, rules := range [][]rule{l.callerRules(ctx, &r.id), l.projectRules(ctx, repo)} {
		for i := range rules {
			if rules[i].unit == access.Bytes {
				l.charge(rules[i].key, n)
			}
		}
	}
}

// callerRules are the limits of an address, an identity and a key. Where they
// cannot be found out there are none: the policy behind needs the same database.
func (l *Limiter) callerRules(ctx context.Context, id *auth.Identity) (rules []rule) {
	common, err := l.dir.Plan(ctx, "")
	if err != nil {
		l.warn("limits cannot be looked up: requests pass", err)
		return nil
	}
	for i := range common.Rates {
		if rate := &common.Rates[i]; rate.Per == access.PerAddress {
			address := clientaddr.Network(id.Address)
			rules = add(rules, rate, address, address)
		}
	}
	own, admin, err := l.plan(ctx, id, common)
	if err != nil {
		l.warn("limits cannot be looked up: requests pass", err)
		return rules
	}
	if admin {
		return rules
	}
	for i := range own.Rates {
		switch rate := &own.Rates[i]; {
		case rate.Per == access.PerIdentity && id.Kind != access.Anonymous:
			rules = add(rules, rate, identityOf(id), id.String())
		case rate.Per == access.PerKey && id.KeyID != "":
			rules = add(rules, rate, id.KeyID, id.String())
		}
	}
	return rules
}

// plan is the plan of a caller; common is that of those who have no other. One
// whose credential has lapsed is the policy's to refuse, and has none.
func (l *Limiter) plan(ctx context.Context, id *auth.Identity, common *access.Plan) (own *access.Plan, admin bool, err error) {
	if id.Kind == access.Anonymous || id.Kind == access.Local {
		return common, id.Kind == access.Local, nil
	}
	standing, err := l.dir.Standing(ctx, &id.Principal)
	var lapsed *directory.LapsedError
	switch {
	case errors.As(err, &lapsed), err == nil && standing.Subject.Plan == "":
		return common, standing.Subject.Admin, nil
	case err != nil:
		return nil, false, err
	}
	own, err = l.dir.Plan(ctx, standing.Subject.Plan)
	return own, standing.Subject.Admin, err
}

// identityOf names an identity for as long as it lives.
func identityOf(id *auth.Identity) string {
	if id.ID == "" { // known by name alone
		return id.String()
	}
	return id.Owner()
}

// projectRules are the limits of the project that a repository lies in and of
// its organization; of none, where there is no such project yet.
func (l *Limiter) projectRules(ctx context.Context, repo string) (rules []rule) {
	p, err := l.dir.Project(ctx, access.ProjectOf(repo))
	if errors.Is(err, access.ErrNotFound) {
		return nil
	}
	var plan *access.Plan
	if err == nil {
		plan, err = l.dir.Plan(ctx, p.Plan)
	}
	if err != nil {
		l.warn("limits cannot be looked up: requests pass", err)
		return nil
	}
	for i := range plan.Rates {
		switch rate := &plan.Rates[i]; rate.Per {
		case access.PerProject:
			rules = add(rules, rate, p.ID, p.Name)
		case access.PerOrganization:
			rules = add(rules, rate, p.OrganizationID, p.Name)
		}
	}
	return rules
}
