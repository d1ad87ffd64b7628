package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
)

func newOrganization(s app.Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:     "org",
		Short:   "Manage organizations",
		Long:    "Manage organizations. An organization holds projects; a role in it holds in all of them.",
		Example: "  berth org create acme-corp\n  berth org ls",
	}, newOrganizationCreate(s), newOrganizationList(s), newOrganizationShow(s), newOrganizationSet(s), newOrganizationRename(s), newOrganizationDelete(s))
}

func organizationPairs(o apiclient.Organization) [][2]string {
	return [][2]string{{"name", o.Name}, {"plan", or(value(o.Plan), "default")}, {"created", formatTime(&o.Created)}}
}

func newOrganizationCreate(s app.Streams) *cobra.Command {
	var plan string
	c := &cobra.Command{
		Use:     "create NAME",
		Short:   "Make an organization",
		Long:    "Make an organization. For administrators.",
		Example: "  berth org create acme-corp --plan team",
		Args:    exactly("NAME"),
	}
	c.Flags().StringVar(&plan, "plan", "", "bound what its projects use by the plan `NAME`")
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		o, err := read[apiclient.Organization](cl.CreateOrganization(ctx, nil, apiclient.NewOrganization{Name: args[0], Plan: given(plan)}))
		if err != nil {
			return err
		}
		return cl.say(o, "organization %s is made", o.Name)
	})
}

func newOrganizationList(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "ls",
		Short:   "List organizations",
		Long:    "List the organizations in which you have a role.",
		Example: "  berth org ls",
		Args:    noArgs,
	}, s, func(ctx context.Context, cl *client, _ []string) error {
		all := pages[apiclient.Organization](func(after *string) (*http.Response, error) {
			return cl.ListOrganizations(ctx, &apiclient.ListOrganizationsParams{After: after, Limit: new(int64(pageSize))})
		})
		return list(cl.output, all, "NAME PLAN CREATED", func(o apiclient.Organization) []string {
			return []string{o.Name, or(value(o.Plan), "default"), formatTime(&o.Created)}
		})
	})
}

func newOrganizationShow(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "show NAME",
		Short:   "Show an organization",
		Long:    "Show an organization. For its members.",
		Example: "  berth org show acme-corp",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		o, err := read[apiclient.Organization](cl.GetOrganization(ctx, args[0]))
		if err != nil {
			return err
		}
		return cl.fields(o, organizationPairs(o)...)
	})
}

func newOrganizationSet(s app.Streams) *cobra.Command {
	var plan string
	c := &cobra.Command{
		Use:     "set NAME",
		Short:   "Change an organization",
		Long:    "Change an organization. For administrators.",
		Example: "  berth org set acme-corp --plan team",
		Args:    exactly("NAME"),
	}
	c.Flags().StringVar(&plan, "plan", "", "bound what its projects use by the plan `NAME`; empty: by the default plan")
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		change := apiclient.OrganizationChange{Plan: changed(cl, "plan", plan)}
		if change.Plan == nil {
			return cl.wrong("nothing is to be changed: give --plan")
		}
		o, err := read[apiclient.Organization](cl.UpdateOrganization(ctx, args[0], change))
		if err != nil {
			return err
		}
		return cl.fields(o, organizationPairs(o)...)
	})
}

func newOrganizationRename(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "rename NAME NEW",
		Short:   "Give an organization another name",
		Long:    "Give an organization another name. Its projects keep theirs. For administrators.",
		Example: "  berth org rename acme-corp acme-group",
		Args:    exactly("NAME", "NEW"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		o, err := read[apiclient.Organization](cl.UpdateOrganization(ctx, args[0], apiclient.OrganizationChange{Name: &args[1]}))
		if err != nil {
			return err
		}
		return cl.say(o, "organization %s is now %s", args[0], o.Name)
	})
}

func newOrganizationDelete(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete an organization without projects",
		Long:    "Delete an organization that has no projects, also no deleted ones that can be had back. For administrators.",
		Example: "  berth org delete acme-corp",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		return cl.gone(cl.DeleteOrganization(ctx, args[0]))("organization %s is deleted", args[0])
	})
}
