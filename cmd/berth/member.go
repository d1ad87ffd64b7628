package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
)

func newMember(s app.Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "member",
		Short: "Manage who has which role",
		Long: `Manage who has which role in a project or an organization:
  reader      pulls
  writer      and pushes
  maintainer  and deletes, and manages the project's keys
  owner       and manages members, trust rules and the project itself
The highest of all roles that somebody has counts.`,
		Example: `  berth member add acme alice --role writer
  berth member ls acme`,
	}, newMemberAdd(s), newMemberList(s), newMemberRemove(s))
}

// memberFlags say which grant is meant.
type memberFlags struct {
	group, organization bool
	prefix              string
}

func (f *memberFlags) add(c *cobra.Command) {
	f.addPlace(c)
	c.Flags().BoolVar(&f.group, "group", false, "the name is a group's")
	c.Flags().StringVar(&f.prefix, "prefix", "", "only for the `REPOSITORY` and all below it")
}

func (f *memberFlags) addPlace(c *cobra.Command) {
	c.Flags().BoolVar(&f.organization, "org", false, "of an organization, not of a project")
}

func (f *memberFlags) kind() string {
	if f.group {
		return "group"
	}
	return "user"
}

// check finds what the command line cannot mean.
func (f *memberFlags) check(cl *client) error {
	if f.organization && f.prefix != "" {
		return cl.wrong("--prefix is for projects: a role in an organization holds in all of it")
	}
	return nil
}

func newMemberAdd(s app.Streams) *cobra.Command {
	var f memberFlags
	var role string
	c := &cobra.Command{
		Use:   "add PROJECT USER --role ROLE",
		Short: "Give a user or group a role",
		Long: `Give a user or group a role in a project, in place of the one given before for the
same --prefix. For owners; nobody can give more than the own role.`,
		Example: `  berth member add acme alice --role writer
  berth member add acme developers --group --role reader --prefix acme/app
  berth member add acme-corp bob --org --role owner`,
		Args: exactly("PROJECT", "USER"),
	}
	f.add(c)
	c.Flags().StringVar(&role, "role", "", "reader, writer, maintainer or owner")
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		if role == "" {
			return cl.wrong("which role? give --role reader, writer, maintainer or owner")
		}
		if err := f.check(cl); err != nil {
			return err
		}
		grant := apiclient.RoleGrant{Role: apiclient.RoleGrantRole(role)}
		var m apiclient.Member
		var err error
		if f.organization {
			m, err = read[apiclient.Member](cl.PutOrganizationMember(ctx, args[0], apiclient.PutOrganizationMemberParamsKind(f.kind()), args[1], grant))
		} else {
			m, err = read[apiclient.Member](cl.PutProjectMember(ctx, args[0], apiclient.PutProjectMemberParamsKind(f.kind()), args[1],
				&apiclient.PutProjectMemberParams{Prefix: given(f.prefix)}, grant))
		}
		if err != nil {
			return err
		}
		return cl.say(m, "%s %s is now %s of %s", m.Kind, m.Name, m.Role, or(value(m.Prefix), args[0]))
	})
}

func newMemberList(s app.Streams) *cobra.Command {
	var f memberFlags
	c := &cobra.Command{
		Use:   "ls PROJECT",
		Short: "List who has a role",
		Long:  "List who has a role in a project itself, or with --org in an organization. For its members.",
		Example: `  berth member ls acme
  berth member ls acme-corp --org`,
		Args: exactly("PROJECT"),
	}
	f.addPlace(c)
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		all := pages[apiclient.Member](func(after *string) (*http.Response, error) {
			if f.organization {
				return cl.ListOrganizationMembers(ctx, args[0], &apiclient.ListOrganizationMembersParams{After: after, Limit: new(int64(pageSize))})
			}
			return cl.ListProjectMembers(ctx, args[0], &apiclient.ListProjectMembersParams{After: after, Limit: new(int64(pageSize))})
		})
		return list(cl.output, all, "KIND NAME ROLE PREFIX SINCE", func(m apiclient.Member) []string {
			return []string{string(m.Kind), m.Name, string(m.Role), or(value(m.Prefix), "-"), formatTime(&m.Since)}
		})
	})
}

func newMemberRemove(s app.Streams) *cobra.Command {
	var f memberFlags
	c := &cobra.Command{
		Use:   "remove PROJECT USER",
		Short: "Take a role away",
		Long:  "Take the role of a user or group in a project away: the one for the same --prefix. It holds at the next request. For owners.",
		Example: `  berth member remove acme alice
  berth member remove acme developers --group --prefix acme/app`,
		Args: exactly("PROJECT", "USER"),
	}
	f.add(c)
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		if err := f.check(cl); err != nil {
			return err
		}
		if f.organization {
			return cl.gone(cl.DeleteOrganizationMember(ctx, args[0], apiclient.DeleteOrganizationMemberParamsKind(f.kind()), args[1]))(
				"%s %s has no role in organization %s any more", f.kind(), args[1], args[0])
		}
		return cl.gone(cl.DeleteProjectMember(ctx, args[0], apiclient.DeleteProjectMemberParamsKind(f.kind()), args[1],
			&apiclient.DeleteProjectMemberParams{Prefix: given(f.prefix)}))(
			"%s %s has this role in %s no more", f.kind(), args[1], or(f.prefix, args[0]))
	})
}
