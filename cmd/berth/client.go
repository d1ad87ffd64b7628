package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/cmd/berth/internal/credentials"
	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
)

const (
	defaultServer = "http://127.0.0.1:5000" // that of `berth serve`
	apiPrefix     = "/api/v1"
	headerTimeout = time.Minute
	maxAnswer     = 64 << 20
	pageSize      = 500
)

// client is what a command talks to a server with.
type client struct {
	*apiclient.Client
	output
	command *cobra.Command
	server  *url.URL
	http    *http.Client
	open    bool // no credential is sent: what works shows that none is asked for
	errors  io.Writer
}

// clientFlags are common to all commands that talk to a server.
type clientFlags struct {
	server string
	json   bool
}

func (f *clientFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.server, "server", "", "`URL` of the server (default: BERTH_SERVER, else that of the latest log-in)")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
}

// talks makes c a command that talks to a server as whoever is logged in there.
func talks(c *cobra.Command, s app.Streams, run func(ctx context.Context, cl *client, args []string) error) *cobra.Command {
	var f clientFlags
	f.add(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		server, err := findServer(f.server)
		if err != nil {
			return usageError{err, c.CommandPath()}
		}
		key, err := findKey(c.Context(), server)
		if err != nil {
			return err
		}
		cl, err := connect(c, s, f, server, bearer(key))
		if err != nil {
			return err
		}
		return run(c.Context(), cl, args)
	}
	return c
}

// wrong is an error of the command line.
func (cl *client) wrong(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...), cl.command.CommandPath()}
}

// findServer is the server that is meant: by flag, environment, the latest
// log-in, or the one that `berth serve` starts.
func findServer(flag string) (*url.URL, error) {
	named := or(flag, os.Getenv("BERTH_SERVER"))
	if named != "" {
		return credentials.ServerURL(named)
	}
	store, err := credentials.Open(os.Getenv)
	if err != nil {
		return nil, err
	}
	named, err = store.Server()
	switch {
	case errors.Is(err, credentials.ErrNotFound):
		named = defaultServer
	case err != nil:
		return nil, err
	}
	return credentials.ServerURL(named)
}

// findKey is the key for a server: from the environment, or of a log-in. There
// may be none: some servers ask for none.
func findKey(ctx context.Context, server *url.URL) (string, error) {
	if key := strings.TrimSpace(os.Getenv("BERTH_KEY")); key != "" {
		return key, nil
	}
	store, err := credentials.Open(os.Getenv)
	if err != nil {
		return "", err
	}
	c, err := store.Get(ctx, server.String())
	if errors.Is(err, credentials.ErrNotFound) {
		return "", nil
	}
	return c.Secret, err
}

// authorize adds a credential to a request.
type authorize func(*http.Request)

func bearer(key string) authorize {
	if key == "" {
		return nil
	}
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+key) }
}

func basic(user, password string) authorize {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

// connect talks to server with a credential; nil: with none.
func connect(c *cobra.Command, s app.Streams, f clientFlags, server *url.URL, with authorize) (*client, error) {
	if with != nil && server.Scheme == "http" && !credentials.Loopback(server) {
		fmt.Fprintf(s.Err, "berth: warning: %s is not https: others on the way can read what you log in with\n", server)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = headerTimeout
	cl := &client{
		output: output{s.Out, f.json}, command: c, server: server, open: with == nil, errors: s.Err,
		// Who is redirected would lose the credential, or show it to another.
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	edit := func(_ context.Context, r *http.Request) error {
		r.Header.Set("User-Agent", "berth/"+buildVersion())
		if with != nil {
			with(r)
		}
		return nil
	}
	var err error
	cl.Client, err = apiclient.NewClient(server.String()+apiPrefix, apiclient.WithHTTPClient(cl.http), apiclient.WithRequestEditorFn(edit))
	return cl, err
}

// closed tells of the first credential of a server that asked for none.
func (cl *client) closed() {
	if cl.open {
		fmt.Fprintf(cl.errors, "berth: from now on %s asks everybody to log in; `berth admin reset` makes a key of an administrator\n", cl.server.Host)
	}
}

// read is the body of an answer; a problem is an error.
func read[T any](resp *http.Response, err error) (v T, _ error) {
	if err != nil {
		return v, unreachable(err)
	}
	defer resp.Body.Close()
	if err := problemOf(resp); err != nil {
		return v, err
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&v); err != nil {
		return v, fmt.Errorf("the server's answer cannot be read: is %s the address of a Berth registry? %w", resp.Request.URL.Host, err)
	}
	return v, nil
}

// done is read for an answer without a body.
func done(resp *http.Response, err error) error {
	if err != nil {
		return unreachable(err)
	}
	defer resp.Body.Close()
	return problemOf(resp)
}

// pages walks a list. fetch gets the page behind a cursor, nil for the first.
func pages[T any](fetch func(after *string) (*http.Response, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var after *string
		for {
			page, err := read[struct {
				Items []T    `json:"items"`
				Next  string `json:"next"`
			}](fetch(after))
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			after = &page.Next
		}
	}
}

// unreachable says what to do about a server that does not answer.
func unreachable(err error) error {
	var failed *url.Error
	if !errors.As(err, &failed) || errors.Is(err, context.Canceled) {
		return err
	}
	at, _ := url.Parse(failed.URL)
	return fmt.Errorf("%s cannot be reached: %w; is the server running there? Name another one with --server or BERTH_SERVER", at.Host, failed.Err)
}

// apiError is a refusal of the server.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

// problem is how the server says what is wrong, as of RFC 9457.
type problem struct {
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
}

// problemOf is what is wrong with an answer, nil for a good one.
func problemOf(resp *http.Response) error {
	if resp.StatusCode/100 == 2 {
		return nil
	}
	var p problem
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	isProblem := kind == "application/problem+json" && json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&p) == nil
	host := resp.Request.URL.Host
	text := or(p.Detail, p.Title)
	for _, e := range p.Errors {
		text += "; " + strings.TrimPrefix(strings.TrimPrefix(e.Location, "body."), "body") + ": " + e.Message
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized && resp.Request.Header.Get("Authorization") == "":
		text = fmt.Sprintf("you are not logged in to %s: run `berth login %s`, or put a key into BERTH_KEY", host, host)
	case resp.StatusCode == http.StatusUnauthorized:
		text = fmt.Sprintf("%s does not accept your key: it is wrong, revoked or expired; run `berth login %s`, or put another into BERTH_KEY", host, host)
	case resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "":
		text = fmt.Sprintf("%s; try again in %s seconds", or(text, "too many requests"), resp.Header.Get("Retry-After"))
	case resp.StatusCode/100 == 3:
		text = fmt.Sprintf("%s sends to %s: give that address instead", host, resp.Header.Get("Location"))
	case !isProblem:
		text = fmt.Sprintf("the server answered %s: is %s the address of a Berth registry?", resp.Status, host)
	}
	return &apiError{resp.StatusCode, printable(text)}
}

// gone ends a command that takes something away: it prints a sentence, or
// nothing but an empty object as JSON.
func (cl *client) gone(resp *http.Response, err error) func(format string, args ...any) error {
	err = done(resp, err)
	return func(format string, args ...any) error {
		if err != nil {
			return err
		}
		return cl.say(struct{}{}, format, args...)
	}
}
