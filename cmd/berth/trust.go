package main

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
)

func newTrust(s app.Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "trust",
		Short: "Manage which CI jobs are let in without a stored secret",
		Long: `Manage which CI jobs are let in without a stored secret. A trust rule names who
issues the ID tokens of the jobs, and which claims they must have; a job that
matches logs in as user oidc with its ID token as the password.`,
		Example: `  berth trust add release --project acme --role writer \
    --issuer https://token.actions.githubusercontent.com --audience registry.example.com \
    --claim repository=acme/app --claim ref=refs/heads/main`,
	}, newTrustAdd(s), newTrustList(s), newTrustRemove(s))
}

// projectFlag is the --project of commands that cannot do without.
type projectFlag string

func (f *projectFlag) add(c *cobra.Command) {
	c.Flags().StringVarP((*string)(f), "project", "p", "", "of the project `NAME`")
}

func (f *projectFlag) check(cl *client) error {
	if *f == "" {
		return cl.wrong("of which project? give --project")
	}
	return nil
}

func newTrustAdd(s app.Streams) *cobra.Command {
	var project projectFlag
	var rule apiclient.NewTrustRule
	var role string
	var claims, prefixes []string
	c := &cobra.Command{
		Use:   "add NAME --project PROJECT --issuer URL --audience A --claim NAME=PATTERN --role ROLE",
		Short: "Let jobs in whose ID tokens match",
		Long: `Let jobs in whose ID tokens come from the issuer, are for the audience, and have
all the claims. In a pattern * stands for any run of characters. For owners of the
project.`,
		Example: `  berth trust add release --project acme --role writer \
    --issuer https://token.actions.githubusercontent.com --audience registry.example.com \
    --claim repository=acme/app --claim 'ref=refs/tags/v*'`,
		Args: exactly("NAME"),
	}
	project.add(c)
	c.Flags().StringVar(&rule.Issuer, "issuer", "", "`URL` of who issues the tokens")
	c.Flags().StringVar(&rule.Audience, "audience", "", "whom the tokens must be for: `NAME`")
	c.Flags().StringArrayVar(&claims, "claim", nil, "what a token must say: `NAME=PATTERN`; can be repeated")
	c.Flags().StringVar(&role, "role", "", "what the jobs may do: `reader`, writer, maintainer or owner")
	c.Flags().StringArrayVar(&prefixes, "prefix", nil, "only for the `REPOSITORY` and all below it; can be repeated")
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		if err := project.check(cl); err != nil {
			return err
		}
		if rule.Issuer == "" || rule.Audience == "" || role == "" || len(claims) == 0 {
			return cl.wrong("give --issuer, --audience, --role and at least one --claim")
		}
		rule.Name, rule.Role, rule.Claims, rule.Prefixes = args[0], apiclient.NewTrustRuleRole(role), map[string]string{}, some(prefixes)
		for _, claim := range claims {
			name, pattern, ok := strings.Cut(claim, "=")
			if _, twice := rule.Claims[name]; !ok || name == "" || twice {
				return cl.wrong("--claim %.128q: must be NAME=PATTERN, each name once", claim)
			}
			rule.Claims[name] = pattern
		}
		r, err := read[apiclient.TrustRule](cl.CreateTrustRule(ctx, string(project), nil, rule))
		if err != nil {
			return err
		}
		return cl.say(r, "trust rule %s is made: jobs that match are %s of %s", r.Name, r.Role, project)
	})
}

func newTrustList(s app.Streams) *cobra.Command {
	var project projectFlag
	c := &cobra.Command{
		Use:     "ls --project PROJECT",
		Short:   "List the trust rules of a project",
		Long:    "List the trust rules of a project. For its owners.",
		Example: "  berth trust ls --project acme",
		Args:    noArgs,
	}
	project.add(c)
	return talks(c, s, func(ctx context.Context, cl *client, _ []string) error {
		if err := project.check(cl); err != nil {
			return err
		}
		all := pages[apiclient.TrustRule](func(after *string) (*http.Response, error) {
			return cl.ListTrustRules(ctx, string(project), &apiclient.ListTrustRulesParams{After: after, Limit: new(int64(pageSize))})
		})
		return list(cl.output, all, "NAME ROLE ISSUER AUDIENCE CLAIMS FOR", func(r apiclient.TrustRule) []string {
			var claims []string
			for _, name := range slices.Sorted(maps.Keys(r.Claims)) {
				claims = append(claims, name+"="+r.Claims[name])
			}
			return []string{r.Name, string(r.Role), r.Issuer, r.Audience, strings.Join(claims, ","), or(strings.Join(value(r.Prefixes), ","), "-")}
		})
	})
}

func newTrustRemove(s app.Streams) *cobra.Command {
	var project projectFlag
	c := &cobra.Command{
		Use:     "remove NAME --project PROJECT",
		Short:   "Remove a trust rule",
		Long:    "Remove a trust rule: its jobs are let in no more, also with tokens that they have. For owners of the project.",
		Example: "  berth trust remove release --project acme",
		Args:    exactly("NAME"),
	}
	project.add(c)
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		if err := project.check(cl); err != nil {
			return err
		}
		return cl.gone(cl.DeleteTrustRule(ctx, string(project), args[0]))("trust rule %s is removed", args[0])
	})
}
