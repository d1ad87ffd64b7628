package apihttp

import (
	"context"
	"net/http"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/manage"
	"github.com/berth-registry/berth/internal/meta"
)

// windows are the names of a rate's windows.
var windows = map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}

func rates(list []Rate) []access.Rate {
	out := make([]access.Rate, len(list))
	for i, r := range list {
		out[i] = access.Rate{Per: access.Scope(r.Per), Unit: access.Unit(r.Unit), Window: windows[r.Window], Amount: r.Amount}
	}
	return out
}

func plan(p access.Plan) Plan {
	out := Plan{
		Name: p.Name, Rates: make([]Rate, len(p.Rates)), MaxBlob: p.MaxBlob, MaxManifest: p.MaxManifest,
		Storage: p.Storage, Repositories: p.Repositories, Created: p.CreatedAt.UTC(),
	}
	for i, r := range p.Rates {
		out.Rates[i] = Rate{Per: string(r.Per), Unit: string(r.Unit), Amount: r.Amount}
		for name, window := range windows {
			if window == r.Window {
				out.Rates[i].Window = name
			}
		}
	}
	return out
}

// InPlan names a plan in a path.
type InPlan struct {
	Plan string `path:"plan" maxLength:"128" doc:"Name of the plan" example:"team"`
}

func plans(a *api) {
	m := a.Manage
	const tag, all, one = "plans", "/plans", "/plans/{plan}"
	add(a, op{
		method: http.MethodGet, path: all, id: "list-plans", tag: tag,
		summary: "List plans", description: "Plan default is that of everybody without another. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *Paging) (*body[List[Plan]], error) {
		page, err := m.Plans(ctx, c, in.page())
		return list(page, err, plan)
	})
	add(a, op{
		method: http.MethodPost, path: all, id: "create-plan", tag: tag, status: http.StatusCreated,
		summary: "Create a plan", description: "For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct{ Body NewPlan }) (*body[Plan], error) {
		b := in.Body
		p, err := m.CreatePlan(ctx, c, access.Plan{
			Name: b.Name, Rates: rates(b.Rates), MaxBlob: b.MaxBlob, MaxManifest: b.MaxManifest, Storage: b.Storage, Repositories: b.Repositories,
		})
		return answer(plan(p), err)
	})
	add(a, op{
		method: http.MethodGet, path: one, id: "get-plan", tag: tag,
		summary: "Get a plan", description: "For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *InPlan) (*body[Plan], error) {
		p, err := m.Plan(ctx, c, in.Plan)
		return answer(plan(p), err)
	})
	add(a, op{
		method: http.MethodPatch, path: one, id: "update-plan", tag: tag,
		summary: "Change a plan", description: "For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *struct {
		InPlan
		Body PlanChange
	}) (*body[Plan], error) {
		b := in.Body
		change := meta.PlanChange{Name: b.Name, MaxBlob: b.MaxBlob, MaxManifest: b.MaxManifest, Storage: b.Storage, Repositories: b.Repositories}
		if b.Rates != nil {
			change.Rates = new(rates(*b.Rates))
		}
		p, err := m.SetPlan(ctx, c, in.Plan, change)
		return answer(plan(p), err)
	})
	add(a, op{
		method: http.MethodDelete, path: one, id: "delete-plan", tag: tag,
		summary: "Delete a plan", description: "One that nobody has. For administrators.",
	}, func(ctx context.Context, c *manage.Caller, in *InPlan) (*none, error) {
		return empty(m.DeletePlan(ctx, c, in.Plan))
	})
}
