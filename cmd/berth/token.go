package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
)

func newToken(s app.Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "token",
		Short: "Manage refresh tokens and the keys that sign tokens",
		Long: `Manage refresh tokens, which clients keep to get short-lived tokens with, and the
keys that the server signs tokens with.`,
		Example: `  berth token ls
  berth token rotate-keys`,
	}, newTokenList(s), newTokenRevoke(s), newTokenKeys(s), newTokenRotate(s))
}

func newTokenList(s app.Streams) *cobra.Command {
	var user string
	var everybody bool
	c := &cobra.Command{
		Use:   "ls",
		Short: "List refresh tokens",
		Long:  "List your refresh tokens, those of a user, or for administrators those of everybody.",
		Example: `  berth token ls
  berth token ls --all`,
		Args: noArgs,
	}
	c.Flags().StringVar(&user, "user", "", "those of the user `NAME`")
	c.Flags().BoolVar(&everybody, "all", false, "those of everybody")
	return talks(c, s, func(ctx context.Context, cl *client, _ []string) error {
		if user != "" && everybody {
			return cl.wrong("choose one of --user and --all")
		}
		all := pages[apiclient.RefreshToken](func(after *string) (*http.Response, error) {
			if user == "" && !everybody {
				return cl.ListMyTokens(ctx, &apiclient.ListMyTokensParams{After: after, Limit: new(int64(pageSize))})
			}
			return cl.ListTokens(ctx, &apiclient.ListTokensParams{After: after, Limit: new(int64(pageSize)), User: given(user)})
		})
		return list(cl.output, all, "ID USER KEY CLIENT ADDRESS CREATED EXPIRES LAST-USED", func(t apiclient.RefreshToken) []string {
			return []string{
				t.Id, or(value(t.User), "-"), or(value(t.Key), "-"), or(value(t.Client), "-"), or(value(t.Address), "-"),
				formatTime(&t.Created), formatTime(&t.Expires), or(formatTime(t.LastUsed), "never"),
			}
		})
	})
}

func newTokenRevoke(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "revoke ID",
		Short:   "Revoke a refresh token",
		Long:    "Revoke a refresh token: its client must log in again. For administrators and the user it belongs to.",
		Example: "  berth token revoke 0198c5f0-5c1e-7d7e-9a63-5b8f6a3d2c10",
		Args:    exactly("ID"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		return cl.gone(cl.RevokeToken(ctx, args[0]))("the token is revoked")
	})
}

func newTokenKeys(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "keys",
		Short:   "List the keys that sign tokens",
		Long:    "List the keys that the server signs tokens with, the newest first. For administrators.",
		Example: "  berth token keys",
		Args:    noArgs,
	}, s, func(ctx context.Context, cl *client, _ []string) error {
		all := pages[apiclient.SigningKey](func(*string) (*http.Response, error) {
			return cl.ListSigningKeys(ctx)
		})
		return list(cl.output, all, "ID ALGORITHM STATE CREATED", func(k apiclient.SigningKey) []string {
			state := "signs"
			if k.Retired != nil {
				state = "verifies since " + formatTime(k.Retired)
			}
			return []string{k.Id, k.Algorithm, state, formatTime(&k.Created)}
		})
	})
}

func newTokenRotate(s app.Streams) *cobra.Command {
	var revoke bool
	c := &cobra.Command{
		Use:   "rotate-keys",
		Short: "Sign tokens with a new key",
		Long: `Sign tokens with a new key from now on. The one before verifies those it signed
until they expire; with --revoke they are worth nothing at once, for when it
leaked. For administrators.`,
		Example: `  berth token rotate-keys
  berth token rotate-keys --revoke`,
		Args: noArgs,
	}
	c.Flags().BoolVar(&revoke, "revoke", false, "have tokens that older keys signed worth nothing at once")
	return talks(c, s, func(ctx context.Context, cl *client, _ []string) error {
		k, err := read[apiclient.SigningKey](cl.RotateSigningKey(ctx, nil, apiclient.Rotation{Revoke: given(revoke)}))
		if err != nil {
			return err
		}
		return cl.say(k, "tokens are signed with the new key %s (%s)", k.Id, k.Algorithm)
	})
}
