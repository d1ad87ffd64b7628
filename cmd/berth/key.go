package main

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
)

func newKey(s app.Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "key",
		Short: "Manage keys",
		Long: `Manage keys: what programs log in with, and what you log in with from machines that
shall not know your password. A key of a project belongs to no person. It works as
the password of docker login with any user name that is no user's.`,
		Example: `  berth key create --project acme --name ci --role writer --expires 90d
  berth key ls --project acme
  berth key revoke --project acme ci`,
	}, newKeyCreate(s), newKeyList(s), newKeyRevoke(s))
}

// keyOwner is whose keys are meant: a project's, a user's, or one's own.
type keyOwner struct{ project, user string }

func (o *keyOwner) add(c *cobra.Command) {
	c.Flags().StringVarP(&o.project, "project", "p", "", "of the project `NAME`")
	c.Flags().StringVar(&o.user, "user", "", "of the user `NAME` (default: your own)")
}

func (o *keyOwner) check(cl *client) error {
	if o.project != "" && o.user != "" {
		return cl.wrong("choose one of --project and --user")
	}
	return nil
}

func newKeyCreate(s app.Streams) *cobra.Command {
	var o keyOwner
	var name, role string
	var expires durationFlag
	var prefixes, addresses []string
	c := &cobra.Command{
		Use:   "create --project PROJECT --name NAME --role ROLE",
		Short: "Make a key",
		Long: `Make a key and print it on the last line. It is shown only now. A project's key
needs a role; one of a user may do what the user may, or less.`,
		Example: `  berth key create --project acme --name ci --role writer --expires 90d
  berth key create --project acme --name deploy --role reader --prefix acme/app --address 192.0.2.0/24
  berth key create --name laptop --expires 30d
  berth key create --project acme --name ci --role writer | tail -n 1 | docker login -u ci --password-stdin registry.example.com`,
		Args: noArgs,
	}
	o.add(c)
	c.Flags().StringVar(&name, "name", "", "what to call the key: `NAME`")
	c.Flags().StringVar(&role, "role", "", "the most it lets do: `reader`, writer, maintainer or owner")
	c.Flags().Var(&expires, "expires", "how long it is good, such as 90d (default: for ever)")
	c.Flags().StringArrayVar(&prefixes, "prefix", nil, "good only for the `REPOSITORY` and all below it; can be repeated")
	c.Flags().StringArrayVar(&addresses, "address", nil, "good only from the address or `RANGE`, such as 192.0.2.0/24; can be repeated")
	return talks(c, s, func(ctx context.Context, cl *client, _ []string) error {
		if err := o.check(cl); err != nil {
			return err
		}
		if name == "" {
			return cl.wrong("what shall the key be called? give --name")
		}
		if o.project != "" && role == "" {
			return cl.wrong("what may the key do? give --role reader, writer, maintainer or owner")
		}
		k := apiclient.NewKey{Name: name, Role: given(apiclient.NewKeyRole(role)), Prefixes: some(prefixes), Addresses: some(addresses)}
		if expires != 0 {
			k.Expires = new(time.Now().Add(time.Duration(expires)).UTC().Truncate(time.Second))
		}
		made, err := read[apiclient.CreatedKey](o.create(ctx, cl, k))
		if err != nil {
			return err
		}
		cl.closed()
		return cl.say(made, "key %s is made%s; this is the only time that it is shown:\n%s", made.Key.Name, until(made.Key.Expires), made.Secret)
	})
}

func (o *keyOwner) create(ctx context.Context, cl *client, k apiclient.NewKey) (*http.Response, error) {
	switch {
	case o.project != "":
		return cl.CreateProjectKey(ctx, o.project, nil, k)
	case o.user != "":
		return cl.CreateUserKey(ctx, o.user, nil, k)
	}
	return cl.CreateMyKey(ctx, nil, k)
}

func until(t *time.Time) string {
	if t == nil {
		return ""
	}
	return ", good until " + formatTime(t)
}

// some is a pointer to a list, nil for an empty one.
func some(list []string) *[]string {
	if len(list) == 0 {
		return nil
	}
	return &list
}

func newKeyList(s app.Streams) *cobra.Command {
	var o keyOwner
	c := &cobra.Command{
		Use:   "ls",
		Short: "List keys",
		Long:  "List the keys of a project, of a user, or your own, without their secrets; also those that are revoked or expired.",
		Example: `  berth key ls --project acme
  berth key ls`,
		Args: noArgs,
	}
	o.add(c)
	return talks(c, s, func(ctx context.Context, cl *client, _ []string) error {
		if err := o.check(cl); err != nil {
			return err
		}
		all := pages[apiclient.Key](func(after *string) (*http.Response, error) { return o.list(ctx, cl, after) })
		return list(cl.output, all, "NAME ROLE STATE FOR FROM CREATED LAST-USED ID", func(k apiclient.Key) []string {
			return []string{
				k.Name, or(string(value(k.Role)), "-"), keyState(k), or(strings.Join(value(k.Prefixes), ","), "-"),
				or(strings.Join(value(k.Addresses), ","), "-"), formatTime(&k.Created), or(formatTime(k.LastUsed), "never"), k.Id,
			}
		})
	})
}

func (o *keyOwner) list(ctx context.Context, cl *client, after *string) (*http.Response, error) {
	n := new(int64(pageSize))
	switch {
	case o.project != "":
		return cl.ListProjectKeys(ctx, o.project, &apiclient.ListProjectKeysParams{After: after, Limit: n})
	case o.user != "":
		return cl.ListUserKeys(ctx, o.user, &apiclient.ListUserKeysParams{After: after, Limit: n})
	}
	return cl.ListMyKeys(ctx, &apiclient.ListMyKeysParams{After: after, Limit: n})
}

func keyState(k apiclient.Key) string {
	switch {
	case k.Revoked != nil:
		return "revoked"
	case k.Expires == nil:
		return "good"
	case !k.Expires.After(time.Now()):
		return "expired"
	}
	return "good until " + formatTime(k.Expires)
}

func newKeyRevoke(s app.Streams) *cobra.Command {
	var o keyOwner
	c := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Revoke a key",
		Long:  "Revoke a key, by its name or id: the next request with it, or with a token that came of it, is refused.",
		Example: `  berth key revoke --project acme ci
  berth key revoke laptop`,
		Args: exactly("NAME"),
	}
	o.add(c)
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		if err := o.check(cl); err != nil {
			return err
		}
		return cl.gone(o.revoke(ctx, cl, args[0]))("key %s is revoked", args[0])
	})
}

func (o *keyOwner) revoke(ctx context.Context, cl *client, name string) (*http.Response, error) {
	switch {
	case o.project != "":
		return cl.RevokeProjectKey(ctx, o.project, name)
	case o.user != "":
		return cl.RevokeUserKey(ctx, o.user, name)
	}
	return cl.RevokeMyKey(ctx, name)
}
