package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
)

func newGroup(s app.Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "group",
		Short: "Manage groups of users",
		Long:  "Manage groups: users that roles are given to together. For administrators.",
		Example: `  berth group create developers
  berth group add developers alice
  berth member add acme developers --group --role writer`,
	}, newGroupCreate(s), newGroupList(s), newGroupShow(s), newGroupSet(s), newGroupRename(s), newGroupAdd(s), newGroupRemove(s), newGroupDelete(s))
}

// groupFlags are what can be said of a group.
type groupFlags struct {
	claim string
	admin bool
}

func (f *groupFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.claim, "claim", "", "what the identity provider calls the group: `NAME`; its users become members when they log in")
	c.Flags().BoolVar(&f.admin, "admin", false, "its members may do everything")
}

func newGroupCreate(s app.Streams) *cobra.Command {
	var f groupFlags
	c := &cobra.Command{
		Use:     "create NAME",
		Short:   "Make a group",
		Long:    "Make a group. For administrators.",
		Example: "  berth group create developers --claim dev-team",
		Args:    exactly("NAME"),
	}
	f.add(c)
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		g, err := read[apiclient.Group](cl.CreateGroup(ctx, nil, apiclient.NewGroup{Name: args[0], Claim: given(f.claim), Admin: given(f.admin)}))
		if err != nil {
			return err
		}
		return cl.say(g, "group %s is made", g.Name)
	})
}

func newGroupList(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "ls",
		Short:   "List groups",
		Long:    "List groups. For administrators.",
		Example: "  berth group ls",
		Args:    noArgs,
	}, s, func(ctx context.Context, cl *client, _ []string) error {
		all := pages[apiclient.Group](func(after *string) (*http.Response, error) {
			return cl.ListGroups(ctx, &apiclient.ListGroupsParams{After: after, Limit: new(int64(pageSize))})
		})
		return list(cl.output, all, "NAME ADMIN CLAIM CREATED", func(g apiclient.Group) []string {
			return []string{g.Name, yes(g.Admin), or(value(g.Claim), "-"), formatTime(&g.Created)}
		})
	})
}

// shownGroup is a group with its members.
type shownGroup struct {
	apiclient.Group
	Members []apiclient.GroupMember `json:"members"`
}

func newGroupShow(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "show NAME",
		Short:   "Show a group and its members",
		Long:    "Show a group and its members. For administrators.",
		Example: "  berth group show developers",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) (err error) {
		g := shownGroup{Members: []apiclient.GroupMember{}}
		if g.Group, err = read[apiclient.Group](cl.GetGroup(ctx, args[0])); err != nil {
			return err
		}
		pairs := [][2]string{{"name", g.Name}, {"admin", yes(g.Admin)}, {"claim", value(g.Claim)}, {"created", formatTime(&g.Created)}}
		for m, err := range pages[apiclient.GroupMember](func(after *string) (*http.Response, error) {
			return cl.ListGroupMembers(ctx, args[0], &apiclient.ListGroupMembersParams{After: after, Limit: new(int64(pageSize))})
		}) {
			if err != nil {
				return err
			}
			g.Members = append(g.Members, m)
			how := ""
			if m.ByClaim {
				how = " (by the identity provider)"
			}
			pairs = append(pairs, [2]string{"member", m.Name + how})
		}
		return cl.fields(g, pairs...)
	})
}

func newGroupSet(s app.Streams) *cobra.Command {
	var f groupFlags
	c := &cobra.Command{
		Use:     "set NAME",
		Short:   "Change a group",
		Long:    "Change a group: only what is given. For administrators.",
		Example: "  berth group set developers --claim engineering",
		Args:    exactly("NAME"),
	}
	f.add(c)
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		change := apiclient.GroupChange{Claim: changed(cl, "claim", f.claim), Admin: changed(cl, "admin", f.admin)}
		if change == (apiclient.GroupChange{}) {
			return cl.wrong("nothing is to be changed: give --claim or --admin")
		}
		g, err := read[apiclient.Group](cl.UpdateGroup(ctx, args[0], change))
		if err != nil {
			return err
		}
		return cl.say(g, "group %s is changed", g.Name)
	})
}

func newGroupRename(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "rename NAME NEW",
		Short:   "Give a group another name",
		Long:    "Give a group another name. Its members and roles stay. For administrators.",
		Example: "  berth group rename developers engineers",
		Args:    exactly("NAME", "NEW"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		g, err := read[apiclient.Group](cl.UpdateGroup(ctx, args[0], apiclient.GroupChange{Name: &args[1]}))
		if err != nil {
			return err
		}
		return cl.say(g, "group %s is now %s", args[0], g.Name)
	})
}

func newGroupAdd(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "add GROUP USER",
		Short:   "Put a user into a group",
		Long:    "Put a user into a group, whatever the identity provider says. For administrators.",
		Example: "  berth group add developers alice",
		Args:    exactly("GROUP", "USER"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		return cl.gone(cl.PutGroupMember(ctx, args[0], args[1]))("user %s is in group %s", args[1], args[0])
	})
}

func newGroupRemove(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:   "remove GROUP USER",
		Short: "Take a user out of a group",
		Long: `Take a user out of a group. One whom the identity provider put there comes back
with the next log-in. For administrators.`,
		Example: "  berth group remove developers alice",
		Args:    exactly("GROUP", "USER"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		return cl.gone(cl.DeleteGroupMember(ctx, args[0], args[1]))("user %s is not in group %s any more", args[1], args[0])
	})
}

func newGroupDelete(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete a group",
		Long:    "Delete a group with its roles; its users stay. For administrators.",
		Example: "  berth group delete developers",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		return cl.gone(cl.DeleteGroup(ctx, args[0]))("group %s is deleted", args[0])
	})
}
