package main

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
)

func newPlan(s app.Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "plan",
		Short: "Manage plans: bounds of what is used",
		Long: `Manage plans. A plan bounds what is used: by rates, such as identity=600/minute
requests or project=10GiB/day of content, and by sizes. Projects, organizations and
users can each have one; who has none has the plan default. For administrators.`,
		Example: `  berth plan create team --rate identity=600/minute --storage 100GiB
  berth plan set default --rate address=100/minute`,
	}, newPlanCreate(s), newPlanList(s), newPlanShow(s), newPlanSet(s), newPlanDelete(s))
}

// planFlags are what can be said of a plan.
type planFlags struct {
	rates                         []string
	noRates                       bool
	maxBlob, maxManifest, storage sizeFlag
	repositories                  int64
}

func (f *planFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.rates, "rate", nil, "`PER=AMOUNT/WINDOW`, such as identity=600/minute (requests) or project=10GiB/day (content); per address, identity, key, project or organization; a minute, hour or day; can be repeated")
	c.Flags().Var(&f.maxBlob, "max-blob", "largest blob, such as 10GiB, or none")
	c.Flags().Var(&f.maxManifest, "max-manifest", "largest manifest, or none")
	c.Flags().Var(&f.storage, "storage", "what a project may hold, or none")
	c.Flags().Int64Var(&f.repositories, "repositories", 0, "how many repositories a project may have; 0: any number")
}

// parsed are the rates, nil for none.
func (f *planFlags) parsed(cl *client) (*[]apiclient.Rate, error) {
	if len(f.rates) == 0 {
		return nil, nil
	}
	all := []apiclient.Rate{}
	for _, text := range f.rates {
		r, err := parseRate(text)
		if err != nil {
			return nil, cl.wrong("--rate %w", err)
		}
		all = append(all, apiclient.Rate{
			Per: apiclient.RatePer(r.per), Unit: apiclient.RateUnit(r.unit), Window: apiclient.RateWindow(r.window), Amount: r.amount,
		})
	}
	return &all, nil
}

func formatRates(list []apiclient.Rate) []string {
	var all []string
	for _, r := range list {
		all = append(all, rate{string(r.Per), string(r.Unit), string(r.Window), r.Amount}.String())
	}
	return all
}

func formatCount(n int64) string {
	if n == 0 {
		return "none"
	}
	return strconv.FormatInt(n, 10)
}

func planPairs(p apiclient.Plan) [][2]string {
	pairs := [][2]string{
		{"name", p.Name}, {"max blob", formatBound(p.MaxBlob)}, {"max manifest", formatBound(p.MaxManifest)},
		{"storage", formatBound(p.Storage)}, {"repositories", formatCount(p.Repositories)},
	}
	for _, r := range formatRates(p.Rates) {
		pairs = append(pairs, [2]string{"rate", r})
	}
	return append(pairs, [2]string{"created", formatTime(&p.Created)})
}

func newPlanCreate(s app.Streams) *cobra.Command {
	var f planFlags
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a plan",
		Long:  "Make a plan. What is not given is not bound. For administrators.",
		Example: `  berth plan create team --rate identity=600/minute --rate project=50GiB/day
  berth plan create small --storage 5GiB --repositories 10 --max-blob 1GiB`,
		Args: exactly("NAME"),
	}
	f.add(c)
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		rates, err := f.parsed(cl)
		if err != nil {
			return err
		}
		p, err := read[apiclient.Plan](cl.CreatePlan(ctx, nil, apiclient.NewPlan{
			Name: args[0], Rates: rates, MaxBlob: f.maxBlob.n, MaxManifest: f.maxManifest.n, Storage: f.storage.n, Repositories: given(f.repositories),
		}))
		if err != nil {
			return err
		}
		return cl.fields(p, planPairs(p)...)
	})
}

func newPlanList(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "ls",
		Short:   "List plans",
		Long:    "List plans. For administrators.",
		Example: "  berth plan ls",
		Args:    noArgs,
	}, s, func(ctx context.Context, cl *client, _ []string) error {
		all := pages[apiclient.Plan](func(after *string) (*http.Response, error) {
			return cl.ListPlans(ctx, &apiclient.ListPlansParams{After: after, Limit: new(int64(pageSize))})
		})
		return list(cl.output, all, "NAME STORAGE REPOSITORIES MAX-BLOB MAX-MANIFEST RATES", func(p apiclient.Plan) []string {
			return []string{
				p.Name, formatBound(p.Storage), formatCount(p.Repositories), formatBound(p.MaxBlob), formatBound(p.MaxManifest),
				or(strings.Join(formatRates(p.Rates), ","), "none"),
			}
		})
	})
}

func newPlanShow(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "show NAME",
		Short:   "Show a plan",
		Long:    "Show a plan. For administrators.",
		Example: "  berth plan show default",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		p, err := read[apiclient.Plan](cl.GetPlan(ctx, args[0]))
		if err != nil {
			return err
		}
		return cl.fields(p, planPairs(p)...)
	})
}

func newPlanSet(s app.Streams) *cobra.Command {
	var f planFlags
	c := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a plan",
		Long: `Change a plan: only what is given. All --rate together take the place of the rates
before; --no-rates leaves none. For administrators.`,
		Example: `  berth plan set default --rate address=100/minute --rate identity=1000/minute
  berth plan set team --storage none`,
		Args: exactly("NAME"),
	}
	f.add(c)
	c.Flags().BoolVar(&f.noRates, "no-rates", false, "bind no rate any more")
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		rates, err := f.parsed(cl)
		if err != nil {
			return err
		}
		if f.noRates {
			if rates != nil {
				return cl.wrong("choose one of --rate and --no-rates")
			}
			rates = &[]apiclient.Rate{}
		}
		change := apiclient.PlanChange{
			Rates: rates, MaxBlob: f.maxBlob.n, MaxManifest: f.maxManifest.n, Storage: f.storage.n,
			Repositories: changed(cl, "repositories", f.repositories),
		}
		if change == (apiclient.PlanChange{}) {
			return cl.wrong("nothing is to be changed: give --rate, --no-rates, --storage, --repositories, --max-blob or --max-manifest")
		}
		p, err := read[apiclient.Plan](cl.UpdatePlan(ctx, args[0], change))
		if err != nil {
			return err
		}
		return cl.fields(p, planPairs(p)...)
	})
}

func newPlanDelete(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete a plan that nobody has",
		Long:    "Delete a plan that no project, organization or user has. For administrators.",
		Example: "  berth plan delete team",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		return cl.gone(cl.DeletePlan(ctx, args[0]))("plan %s is deleted", args[0])
	})
}
