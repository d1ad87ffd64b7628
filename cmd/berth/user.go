package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
)

func newUser(s app.Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "user",
		Short: "Manage users",
		Long:  "Manage users: people who log in with a password, a key of theirs, or at an identity provider. For administrators.",
		Example: `  berth user create alice
  berth user lock bob`,
	}, newUserCreate(s), newUserList(s), newUserShow(s), newUserSet(s), newUserLock(s, true), newUserLock(s, false),
		newUserPassword(s), newUserEndSessions(s), newUserDelete(s))
}

// passwordFlags say where a new password comes from.
type passwordFlags struct{ stdin, none bool }

func (f *passwordFlags) add(c *cobra.Command, none string) {
	c.Flags().BoolVar(&f.stdin, "password-stdin", false, "read the password from standard input")
	c.Flags().BoolVar(&f.none, "no-password", false, none)
}

// read gets the new password; "" where there is to be none.
func (f *passwordFlags) read(cl *client) (string, error) {
	switch {
	case f.none && f.stdin:
		return "", cl.wrong("choose one of --password-stdin and --no-password")
	case f.none:
		return "", nil
	case f.stdin:
		return readSecret(cl.command)
	}
	return askTwice(cl)
}

// askTwice asks for a new password, and again for typing mistakes.
func askTwice(cl *client) (string, error) {
	first, err := ask(cl.command, "New password: ", true)
	if err != nil {
		return "", fmt.Errorf("%w; use --password-stdin", err)
	}
	second, err := ask(cl.command, "Once more: ", true)
	if err == nil && first != second {
		err = errors.New("the two passwords differ")
	}
	return first, err
}

func newUserCreate(s app.Streams) *cobra.Command {
	var password passwordFlags
	var admin bool
	var plan string
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a user",
		Long:  "Make a user. You are asked for the password, of at least 12 characters. The first user of all is an administrator.",
		Example: `  berth user create alice
  echo "$PASSWORD" | berth user create alice --password-stdin
  berth user create builder --no-password`,
		Args: exactly("NAME"),
	}
	password.add(c, "the user gets none, and logs in with keys")
	c.Flags().BoolVar(&admin, "admin", false, "the user may do everything")
	c.Flags().StringVar(&plan, "plan", "", "bound what the user does by the plan `NAME`")
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		secret, err := password.read(cl)
		if err != nil {
			return err
		}
		u, err := read[apiclient.User](cl.CreateUser(ctx, nil, apiclient.NewUser{
			Name: args[0], Password: given(secret), Admin: given(admin), Plan: given(plan),
		}))
		if err != nil {
			return err
		}
		cl.closed()
		if u.Admin {
			return cl.say(u, "user %s is made, an administrator", u.Name)
		}
		return cl.say(u, "user %s is made", u.Name)
	})
}

func newUserList(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "ls",
		Short:   "List users",
		Long:    "List users. For administrators.",
		Example: "  berth user ls",
		Args:    noArgs,
	}, s, func(ctx context.Context, cl *client, _ []string) error {
		all := pages[apiclient.User](func(after *string) (*http.Response, error) {
			return cl.ListUsers(ctx, &apiclient.ListUsersParams{After: after, Limit: new(int64(pageSize))})
		})
		return list(cl.output, all, "NAME ADMIN LOCKED PASSWORD ISSUER PLAN CREATED", func(u apiclient.User) []string {
			return []string{u.Name, yes(u.Admin), yes(u.Locked), yes(u.Password), or(value(u.Issuer), "-"), or(value(u.Plan), "-"), formatTime(&u.Created)}
		})
	})
}

func userPairs(u apiclient.User) [][2]string {
	return [][2]string{
		{"name", u.Name}, {"admin", yes(u.Admin)}, {"locked", yes(u.Locked)}, {"password", yes(u.Password)},
		{"issuer", value(u.Issuer)}, {"plan", or(value(u.Plan), "default")}, {"created", formatTime(&u.Created)},
	}
}

func newUserShow(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "show NAME",
		Short:   "Show a user",
		Long:    "Show a user. For administrators and that user.",
		Example: "  berth user show alice",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		u, err := read[apiclient.User](cl.GetUser(ctx, args[0]))
		if err != nil {
			return err
		}
		return cl.fields(u, userPairs(u)...)
	})
}

func newUserSet(s app.Streams) *cobra.Command {
	var admin bool
	var plan string
	c := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a user",
		Long:  "Change a user: only what is given. For administrators.",
		Example: `  berth user set alice --admin
  berth user set alice --admin=false --plan team`,
		Args: exactly("NAME"),
	}
	c.Flags().BoolVar(&admin, "admin", false, "the user may do everything")
	c.Flags().StringVar(&plan, "plan", "", "bound what the user does by the plan `NAME`; empty: by the default plan")
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		change := apiclient.UserChange{Admin: changed(cl, "admin", admin), Plan: changed(cl, "plan", plan)}
		if change == (apiclient.UserChange{}) {
			return cl.wrong("nothing is to be changed: give --admin or --plan")
		}
		u, err := read[apiclient.User](cl.UpdateUser(ctx, args[0], change))
		if err != nil {
			return err
		}
		return cl.fields(u, userPairs(u)...)
	})
}

func newUserLock(s app.Streams, lock bool) *cobra.Command {
	c := &cobra.Command{
		Use:     "lock NAME",
		Short:   "Let a user do nothing any more",
		Long:    "Let a user do nothing any more, from the next request on, also with tokens and keys that are still good. For administrators.",
		Example: "  berth user lock bob",
		Args:    exactly("NAME"),
	}
	said := "user %s is locked"
	if !lock {
		c.Use, c.Short, c.Example = "unlock NAME", "Let a locked user in again", "  berth user unlock bob"
		c.Long, said = "Let a locked user in again. For administrators.", "user %s is unlocked"
	}
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		u, err := read[apiclient.User](cl.UpdateUser(ctx, args[0], apiclient.UserChange{Locked: &lock}))
		if err != nil {
			return err
		}
		return cl.say(u, said, u.Name)
	})
}

func newUserPassword(s app.Streams) *cobra.Command {
	var password passwordFlags
	c := &cobra.Command{
		Use:   "password [NAME]",
		Short: "Set a password",
		Long: `Set the password of a user, for administrators; without a NAME change your own, for
which the old one is asked too (with --password-stdin: the old one on the first
line, the new one on the second). It ends the sessions of that user.`,
		Example: `  berth user password
  echo "$PASSWORD" | berth user password alice --password-stdin`,
		Args: atMost("NAME"),
	}
	password.add(c, "the user has none any more, and logs in with keys")
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		if len(args) == 0 {
			return changeOwnPassword(ctx, cl, password)
		}
		secret, err := password.read(cl)
		if err != nil {
			return err
		}
		u, err := read[apiclient.User](cl.UpdateUser(ctx, args[0], apiclient.UserChange{Password: &secret}))
		if err != nil {
			return err
		}
		if password.none {
			return cl.say(u, "user %s has no password any more", u.Name)
		}
		return cl.say(u, "user %s has a new password", u.Name)
	})
}

func changeOwnPassword(ctx context.Context, cl *client, f passwordFlags) error {
	if f.none {
		return cl.wrong("--no-password needs the NAME of a user")
	}
	var before, after string
	var err error
	if f.stdin {
		before, after, err = readTwo(cl.command.InOrStdin())
	} else if before, err = ask(cl.command, "Old password: ", true); err == nil {
		after, err = askTwice(cl)
	}
	if err != nil {
		return err
	}
	return cl.gone(cl.ChangePassword(ctx, apiclient.PasswordChange{Old: &before, New: &after}))("you have a new password")
}

// readTwo reads two lines.
func readTwo(in io.Reader) (first, second string, err error) {
	r := bufio.NewReader(io.LimitReader(in, 2*maxSecret))
	if first, err = r.ReadString('\n'); err == nil {
		second, err = r.ReadString('\n')
	}
	first, second = strings.TrimRight(first, "\r\n"), strings.TrimRight(second, "\r\n")
	if first == "" || second == "" || err != nil && !errors.Is(err, io.EOF) {
		return "", "", errors.New("standard input must hold two lines, the old password and the new one")
	}
	return first, second, nil
}

func newUserEndSessions(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:   "end-sessions [NAME]",
		Short: "Have a user's clients log in again",
		Long: `Have the clients of a user, or without a NAME your own, log in again: no token they
were given until now counts any more. Keys and the password do.`,
		Example: "  berth user end-sessions alice",
		Args:    atMost("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		if len(args) == 0 {
			return cl.gone(cl.EndMySessions(ctx))("your sessions are ended")
		}
		return cl.gone(cl.EndUserSessions(ctx, args[0]))("the sessions of user %s are ended", args[0])
	})
}

func newUserDelete(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete a user",
		Long:    "Delete a user with all roles, keys and tokens. What the user pushed stays. For administrators.",
		Example: "  berth user delete bob",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		return cl.gone(cl.DeleteUser(ctx, args[0]))("user %s is deleted", args[0])
	})
}
