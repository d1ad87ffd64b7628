package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/cmd/berth/internal/credentials"
	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
)

// loginLifetime is how long the key of a log-in with a password is good.
const loginLifetime = 90 * 24 * time.Hour

// login is one `berth login`.
type login struct {
	clientFlags
	streams       app.Streams
	command       *cobra.Command
	user          string
	passwordStdin bool
	keyStdin      bool
	oidc          bool
}

func newLogin(s app.Streams) *cobra.Command {
	l := &login{streams: s}
	c := &cobra.Command{
		Use:   "login URL",
		Short: "Log in to a server",
		Long: `Log in to a server, for this and later commands. With a user name and password,
or through the browser with --oidc, the server makes a key for this machine, which
is kept instead of the password; a key that you have is kept as it is.

What is kept is in ~/.config/berth/credentials.json (below XDG_CONFIG_HOME where
that is set), which only you can read. With {"credential_helper": "NAME"} there,
the program docker-credential-NAME keeps it.`,
		Example: `  berth login https://registry.example.com -u alice
  berth login https://registry.example.com --oidc
  berth login 127.0.0.1:5000 --key-stdin < key
  echo "$PASSWORD" | berth login registry.example.com -u alice --password-stdin`,
		Args: exactly("URL"),
	}
	c.Flags().StringVarP(&l.user, "user", "u", "", "log in as the user `NAME`")
	c.Flags().BoolVar(&l.passwordStdin, "password-stdin", false, "read the password from standard input")
	c.Flags().BoolVar(&l.keyStdin, "key-stdin", false, "read a key from standard input")
	c.Flags().BoolVar(&l.oidc, "oidc", false, "log in with the browser, at the server's identity provider")
	c.Flags().BoolVar(&l.json, "json", false, "print JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		l.server, l.command = args[0], c
		return l.run(c.Context())
	}
	return c
}

func (l *login) run(ctx context.Context) error {
	server, err := credentials.ServerURL(l.server)
	if err != nil {
		return usageError{err, l.command.CommandPath()}
	}
	if l.passwordStdin && l.keyStdin || l.oidc && (l.passwordStdin || l.keyStdin) {
		return usageError{errors.New("choose one of --password-stdin, --key-stdin and --oidc"), l.command.CommandPath()}
	}
	l.server = server.String()
	store, err := credentials.Open(os.Getenv)
	if err != nil {
		return err
	}
	old, oldErr := store.Get(ctx, l.server)
	c, err := l.credential(ctx)
	if err != nil {
		return err
	}
	me, err := l.me(ctx, bearer(c.Secret))
	if err != nil {
		return err
	}
	c.User = me.Name
	if l.oidc {
		c.KeyID = value(me.Key)
	}
	if err := store.Put(ctx, l.server, c); err != nil {
		return fmt.Errorf("logged in, but the key cannot be kept: %w", err)
	}
	if oldErr == nil && old.KeyID != "" && old.KeyID != c.KeyID {
		l.forget(ctx, old) // made by the log-in before, and used by nobody now
	}
	if os.Getenv("BERTH_KEY") != "" {
		fmt.Fprintln(l.streams.Err, "berth: warning: BERTH_KEY is set, and other commands use that")
	}
	out := output{l.streams.Out, l.json}
	return out.say(me, "logged in to %s as %s", l.server, me.Name)
}

// credential is what is to be kept: a key.
func (l *login) credential(ctx context.Context) (credentials.Credential, error) {
	switch {
	case l.keyStdin:
		key, err := readSecret(l.command)
		return credentials.Credential{Secret: key}, err
	case l.oidc:
		return l.browse(ctx)
	}
	user, password, err := l.password()
	if err != nil {
		return credentials.Credential{}, err
	}
	return l.exchange(ctx, user, password)
}

func (l *login) password() (user, password string, err error) {
	user = l.user
	if user == "" && l.passwordStdin {
		return "", "", usageError{errors.New("whose password is it? give -u USER"), l.command.CommandPath()}
	}
	if user == "" {
		if user, err = ask(l.command, "User name: ", false); err != nil {
			return "", "", fmt.Errorf("%w; use --key-stdin, --oidc, or -u USER --password-stdin", err)
		}
	}
	if l.passwordStdin {
		password, err = readSecret(l.command)
		return user, password, err
	}
	if password, err = ask(l.command, "Password: ", true); err != nil {
		return "", "", fmt.Errorf("%w; use --password-stdin", err)
	}
	return user, password, nil
}

func (l *login) client(with authorize) (*client, error) {
	server, err := credentials.ServerURL(l.server)
	if err != nil {
		return nil, err
	}
	return connect(l.command, l.streams, l.clientFlags, server, with)
}

// me finds out whether a credential is good, and whose it is.
func (l *login) me(ctx context.Context, with authorize) (apiclient.Me, error) {
	cl, err := l.client(with)
	if err != nil {
		return apiclient.Me{}, err
	}
	return read[apiclient.Me](cl.GetMe(ctx))
}

// exchange makes a key with a password, so that the password need not be kept.
// A secret that is a key already stays what it is.
func (l *login) exchange(ctx context.Context, user, password string) (credentials.Credential, error) {
	me, err := l.me(ctx, basic(user, password))
	if err != nil {
		return credentials.Credential{}, notAdvised(err)
	}
	if value(me.Key) != "" {
		return credentials.Credential{Secret: password}, nil
	}
	cl, err := l.client(basic(user, password))
	if err != nil {
		return credentials.Credential{}, err
	}
	made, err := read[apiclient.CreatedKey](cl.CreateMyKey(ctx, nil, apiclient.NewKey{
		Name: keyName(), Expires: new(time.Now().Add(loginLifetime)),
	}))
	if err != nil {
		return credentials.Credential{}, err
	}
	return credentials.Credential{KeyID: made.Key.Id, Secret: made.Secret}, nil
}

// keyName tells people which machine a key is on. Each log-in has one of its own.
func keyName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	host = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
			return r
		}
		return -1
	}, strings.ToLower(host))
	return fmt.Sprintf("login-%.64s-%06x", or(strings.Trim(host, "-."), "host"), rand.Uint32N(1<<24))
}

// forget revokes the key that a log-in made. It is done with either way.
func (l *login) forget(ctx context.Context, c credentials.Credential) error {
	cl, err := l.client(bearer(c.Secret))
	if err != nil {
		return err
	}
	return done(cl.RevokeMyKey(ctx, c.KeyID))
}

// notAdvised leaves out the advice to log in, of one who is just doing that.
func notAdvised(err error) error {
	var refused *apiError
	if errors.As(err, &refused) && refused.status == http.StatusUnauthorized {
		return errors.New("the server does not know this user name with this password")
	}
	return err
}

func newLogout(s app.Streams) *cobra.Command {
	l := &login{streams: s}
	c := &cobra.Command{
		Use:   "logout [URL]",
		Short: "Log out of a server",
		Long: `Log out of a server: what log-in kept is deleted, and where log-in made the key
the server revokes it. Without a URL, of the server of the latest log-in.`,
		Example: `  berth logout
  berth logout https://registry.example.com`,
		Args: atMost("URL"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		l.command = c
		if len(args) == 1 {
			l.server = args[0]
		}
		return l.logout(c.Context())
	}
	return c
}

func (l *login) logout(ctx context.Context) error {
	server, err := findServer(l.server)
	if err != nil {
		return usageError{err, l.command.CommandPath()}
	}
	l.server = server.String()
	store, err := credentials.Open(os.Getenv)
	if err != nil {
		return err
	}
	c, err := store.Get(ctx, l.server)
	if errors.Is(err, credentials.ErrNotFound) {
		return fmt.Errorf("you are not logged in to %s", l.server)
	}
	revoked := err
	if err == nil && c.KeyID != "" {
		revoked = l.forget(ctx, c)
	}
	if err := store.Delete(ctx, l.server); err != nil {
		return err
	}
	if revoked != nil {
		return fmt.Errorf("logged out of %s, but its key could not be revoked and may still be good: %w", l.server, revoked)
	}
	_, err = fmt.Fprintf(l.streams.Out, "logged out of %s\n", l.server)
	return err
}

func newWhoami(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:   "whoami",
		Short: "Print who you are to the server",
		Long:  "Print who you are to the server, and with which key.",
		Example: `  berth whoami
  BERTH_SERVER=https://registry.example.com BERTH_KEY=… berth whoami --json`,
		Args: noArgs,
	}, s, func(ctx context.Context, cl *client, _ []string) error {
		me, err := read[apiclient.Me](cl.GetMe(ctx))
		if err != nil {
			return err
		}
		return cl.fields(me,
			[2]string{"server", cl.server.String()}, [2]string{"version", me.Server},
			[2]string{"kind", string(me.Kind)}, [2]string{"name", me.Name},
			[2]string{"admin", yes(me.Admin)}, [2]string{"key", value(me.Key)})
	})
}
