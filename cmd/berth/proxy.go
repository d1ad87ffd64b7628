package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berth-registry/berth/internal/apiclient"
	"github.com/berth-registry/berth/internal/app"
	"github.com/berth-registry/berth/internal/proxyspec"
)

func newProxy(s app.Streams) *cobra.Command {
	return group(&cobra.Command{
		Use:   "proxy",
		Short: "Manage pull-through caches of other registries",
		Long: `Manage pull-through caches: what is pulled as docker.io/library/nginx from this server
comes from Docker Hub once, and from here ever after. For administrators. Proxies can
also be written into the configuration file; docs/configuration.md describes both.`,
		Example: `  berth proxy add docker.io
  docker pull registry.example.com/docker.io/library/nginx:1.27
  berth proxy test docker.io/library/nginx:1.27`,
	}, newProxyAdd(s), newProxyList(s), newProxyShow(s), newProxyStats(s), newProxyRemove(s),
		newProxyRefresh(s), newProxyPurge(s), newProxyPrefetch(s), newProxyTest(s))
}

// proxyFlags are what can be said of a proxy.
type proxyFlags struct {
	spec                                 proxyspec.Proxy
	file                                 string
	passwordStdin, tokenStdin            bool
	noPush, replace, keepSecret          bool
	tagTTL, maxStale, maxIdle, cacheSize string
}

func (f *proxyFlags) add(c *cobra.Command) {
	p, flags := &f.spec, c.Flags()
	flags.StringArrayVar(&p.Upstreams, "upstream", nil, "`URL` of the registry; repeat it for mirrors, which come first. Well-known names need none")
	flags.StringArrayVar(&p.Hosts, "host", nil, "`HOST` of this server under which the upstream's repositories have no prefix; can be repeated")
	flags.StringArrayVar(&p.Namespaces, "namespace", nil, "further `NS` that means this upstream in containerd's ns parameter; can be repeated")
	flags.StringArrayVar(&p.Repositories, "repository", nil, "`PATTERN` of repositories that may be had, !PATTERN of those that may not; can be repeated")
	flags.StringVar(&p.Credential.Username, "username", "", "user `NAME` at the upstream, with --password-stdin")
	flags.BoolVar(&f.passwordStdin, "password-stdin", false, "read that user's password or access token from standard input")
	flags.BoolVar(&f.tokenStdin, "token-stdin", false, "read a bearer token from standard input")
	flags.StringVar(&p.HTTPProxy, "http-proxy", "", "`URL` of the HTTP proxy to go through, or none")
	flags.StringArrayVar(&p.Realms, "realm", nil, "`HOST` of a token service that is trusted although it is elsewhere; can be repeated")
	flags.BoolVar(&p.PlainHTTP, "plain-http", false, "allow http:// upstreams that are not on the server's machine")
	flags.StringVar(&f.tagTTL, "tag-ttl", "", "for how long a tag is not asked for again, such as `5m`, 0s or forever")
	flags.StringVar(&f.maxStale, "max-stale", "", "how old a tag may be while the upstream does not answer, such as `30d`")
	flags.StringVar(&p.Tags.OnUpstreamDelete, "on-upstream-delete", "", "`keep` tags that the upstream deletes for a while, or follow")
	flags.StringVar(&f.cacheSize, "cache-size", "", "how much is kept, such as `500GiB`")
	flags.StringVar(&f.maxIdle, "max-idle", "", "what nobody asks for in this time goes, such as `90d`")
	flags.StringArrayVar(&p.Cache.Pins, "pin", nil, "`PATTERN` of REPOSITORY or REPOSITORY:TAG that never goes; can be repeated")
	flags.StringArrayVar(&p.Referrers.Prefetch, "prefetch", nil, "artifact `TYPE` that comes with each image, * for all, cosign for its tags; can be repeated")
	flags.BoolVar(&f.noPush, "no-push", false, "let nobody push signatures and the like into the cache")
	flags.StringVar(&p.Limits.Requests, "requests", "", "how many requests to the upstream in a time, such as `100/m`")
	flags.StringVar(&f.file, "spec", "", "`FILE` with the whole proxy as JSON, as berth proxy show prints it; other flags change it")
	flags.BoolVar(&f.replace, "replace", false, "change the proxy of this name, which is as the flags say from then on")
	flags.BoolVar(&f.keepSecret, "keep-secret", false, "with --replace: keep its password or token")
}

// parsed is the proxy that the flags describe.
func (f *proxyFlags) parsed(cl *client, name string) (p proxyspec.Proxy, err error) {
	if f.file != "" {
		if p, err = readSpec(f.file); err != nil {
			return p, err
		}
	}
	text, err := json.Marshal(f.spec)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(text, &p); err != nil { // what flags do not say is not there, and stays
		return p, err
	}
	p.Name = name
	for _, d := range []struct {
		flag, text string
		to         **proxyspec.Duration
	}{{"tag-ttl", f.tagTTL, &p.Tags.TTL}, {"max-stale", f.maxStale, &p.Tags.MaxStale}, {"max-idle", f.maxIdle, &p.Cache.MaxIdle}} {
		if d.text == "" {
			continue
		}
		*d.to = new(proxyspec.Duration)
		if err := (*d.to).UnmarshalText([]byte(d.text)); err != nil {
			return p, cl.wrong("--%s %w", d.flag, err)
		}
	}
	if f.cacheSize != "" {
		if err := p.Cache.Size.UnmarshalText([]byte(f.cacheSize)); err != nil {
			return p, cl.wrong("--cache-size %w", err)
		}
	}
	if f.noPush {
		p.Referrers.Push = new(bool)
	}
	return p, f.secret(cl, &p)
}

// secret reads what is never on a command line.
func (f *proxyFlags) secret(cl *client, p *proxyspec.Proxy) (err error) {
	switch {
	case f.passwordStdin && f.tokenStdin:
		return cl.wrong("choose one of --password-stdin and --token-stdin: there is one standard input")
	case f.keepSecret && (f.passwordStdin || f.tokenStdin):
		return cl.wrong("choose one: keep the secret that there is, or give another")
	case f.keepSecret && !f.replace:
		return cl.wrong("--keep-secret is for --replace")
	case f.passwordStdin && p.Credential.Username == "":
		return cl.wrong("--password-stdin needs --username")
	case f.passwordStdin:
		p.Credential.Password, err = readSecret(cl.command)
	case f.tokenStdin:
		p.Credential.Token, err = readSecret(cl.command)
	}
	return err
}

// readSpec reads a proxy, or all that show prints of one.
func readSpec(name string) (p proxyspec.Proxy, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return p, err
	}
	var shown struct {
		Spec json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(text, &shown); err != nil {
		return p, fmt.Errorf("%s: %w", name, err)
	}
	if shown.Spec != nil {
		text = shown.Spec
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return p, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func newProxyAdd(s app.Streams) *cobra.Command {
	var f proxyFlags
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a pull-through cache",
		Long: `Add a pull-through cache, which is there at once. NAME is that of the project whose
repositories are the cache. Passwords and tokens are encrypted in the server's database,
for which its configuration needs secrets.key_file. For administrators.`,
		Example: `  berth proxy add docker.io
  berth proxy add docker.io --upstream https://registry-1.docker.io --username example --password-stdin < token
  berth proxy add harbor --upstream https://harbor.example.com --cache-size 500GiB`,
		Args: exactly("NAME"),
	}
	f.add(c)
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		p, err := f.parsed(cl, args[0])
		if err != nil {
			return err
		}
		if err := cl.isNew(ctx, args[0], f.replace); err != nil {
			return err
		}
		body, err := json.Marshal(p)
		if err != nil {
			return err
		}
		params := &apiclient.PutProxyParams{KeepSecret: given(f.keepSecret)}
		added, err := read[apiclient.Proxy](cl.PutProxyWithBody(ctx, args[0], params, "application/json", bytes.NewReader(body)))
		if err != nil {
			return err
		}
		return cl.say(added, "proxy %s caches %s; what is pulled as %s/%s/REPOSITORY comes through it. Try it with: berth proxy test %s",
			args[0], strings.Join(p.Endpoints(), ", "), cl.server.Host, args[0], args[0])
	})
}

// isNew fails where there is a proxy that is not to be replaced.
func (cl *client) isNew(ctx context.Context, name string, replace bool) error {
	if replace {
		return nil
	}
	_, err := read[apiclient.Proxy](cl.GetProxy(ctx, name))
	var refused *apiError
	switch {
	case err == nil:
		return fmt.Errorf("there is a proxy %s already; change it with --replace", name)
	case errors.As(err, &refused) && refused.status == http.StatusNotFound:
		return nil
	}
	return err
}

func newProxyList(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "ls",
		Short:   "List pull-through caches",
		Long:    "List pull-through caches, those of the configuration file too. For administrators.",
		Example: "  berth proxy ls",
		Args:    noArgs,
	}, s, func(ctx context.Context, cl *client, _ []string) error {
		all := pages[shownProxy](func(after *string) (*http.Response, error) {
			return cl.ListProxies(ctx, &apiclient.ListProxiesParams{After: after, Limit: new(int64(pageSize))})
		})
		return list(cl.output, all, "NAME UPSTREAM CREDENTIAL SIZE FROM", func(p shownProxy) []string {
			from := "configuration"
			if p.Managed {
				from = "here"
			}
			return []string{p.Name, strings.Join(p.Spec.Endpoints(), ","), p.credential(), formatBound(int64(p.Spec.Cache.Size)), from}
		})
	})
}

// shownProxy is a proxy as the API shows it.
type shownProxy struct {
	apiclient.Proxy
	Spec proxyspec.Proxy `json:"spec"`
}

// credential says how the upstream is told who asks.
func (p shownProxy) credential() string {
	k := p.Spec.Credential
	switch {
	case k.Username != "":
		return k.Username
	case p.Secret || k.TokenFile != "":
		return "token"
	case k.Helper != "":
		return k.Helper
	}
	return or(k.Exchange, "none")
}

func newProxyShow(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "show NAME",
		Short:   "Show how a pull-through cache is set up",
		Long:    "Show how a pull-through cache is set up, as JSON that `berth proxy add --spec` reads. Secrets are not shown. For administrators.",
		Example: "  berth proxy show docker.io",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		p, err := read[shownProxy](cl.GetProxy(ctx, args[0]))
		if err != nil {
			return err
		}
		cl.json = true
		if f := cl.command.Flag("json"); f != nil && f.Changed {
			return cl.value(p, nil)
		}
		return cl.value(p.Spec, nil)
	})
}

func newProxyStats(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:     "stats NAME",
		Short:   "Show what a pull-through cache has, and how its upstream does",
		Long:    "Show what a pull-through cache has, and how its upstream does as the process knows that answers. For administrators.",
		Example: "  berth proxy stats docker.io",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		st, err := read[apiclient.ProxyStats](cl.GetProxyStats(ctx, args[0]))
		if err != nil {
			return err
		}
		return cl.fields(st, statsPairs(st)...)
	})
}

func statsPairs(st apiclient.ProxyStats) [][2]string {
	count := func(n int64) string { return fmt.Sprint(n) }
	pairs := [][2]string{
		{"kept", formatSize(st.Bytes)}, {"may keep", formatBound(st.Budget)}, {"images", count(st.Images)}, {"manifests", count(st.Manifests)},
		{"pinned", count(st.Pinned)}, {"least recent use", formatTime(st.OldestUse)}, {"most recent use", formatTime(st.NewestUse)},
		{"requests under way", count(st.InFlight)}, {"requests waiting", count(st.Queued)}, {"broken", value(st.Broken)},
	}
	if st.Stretch > 1 {
		pairs = append(pairs, [2]string{"times multiplied by", count(st.Stretch)})
	}
	for _, e := range st.Endpoints {
		text := e.Address
		if limit := value(e.Limit); limit > 0 {
			text += fmt.Sprintf(", %d of %d requests left", e.Remaining, limit)
		}
		if e.PausedUntil != nil {
			text += ", not asked before " + formatTime(e.PausedUntil)
		}
		pairs = append(pairs, [2]string{"upstream", text})
	}
	for _, h := range st.Hosts {
		text := fmt.Sprintf("%s (%s): %s", h.Host, h.Role, hostStates[string(h.State)])
		if h.Failures > 0 {
			text += fmt.Sprintf(", %d failures in a row", h.Failures)
		}
		pairs = append(pairs, [2]string{"host", text})
	}
	return pairs
}

// hostStates are what the states of breakers mean.
var hostStates = map[string]string{"closed": "is asked", "open": "is not asked, for it failed", "half-open": "is asked once, to see"}

func newProxyRemove(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:   "rm NAME",
		Short: "Take a pull-through cache away",
		Long: `Take a pull-through cache away. What it has stays in its project, and is there again when
the proxy is; berth project delete frees it. For administrators.`,
		Example: "  berth proxy rm docker.io",
		Args:    exactly("NAME"),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		return cl.gone(cl.DeleteProxy(ctx, args[0]))("proxy %s is taken away; project %s keeps what was cached", args[0], args[0])
	})
}

// proxied is what an argument NAME[/REPOSITORY[:TAG|@DIGEST]] means.
type proxied struct{ proxy, repository, reference string }

func parseProxied(arg string) (p proxied) {
	p.proxy, p.repository, _ = strings.Cut(arg, "/")
	if repo, digest, ok := strings.Cut(p.repository, "@"); ok {
		p.repository, p.reference = repo, digest
		repo, _, _ = cutTag(repo)
		p.repository = repo
		return p
	}
	p.repository, p.reference, _ = cutTag(p.repository)
	return p
}

// cutTag splits REPOSITORY:TAG.
func cutTag(s string) (repo, tag string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.Contains(s[i:], "/") {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func (p proxied) image() apiclient.ProxyImage {
	return apiclient.ProxyImage{Repository: given(p.repository), Reference: given(p.reference)}
}

const proxiedArg = "NAME[/REPOSITORY[:TAG]]"

func newProxyRefresh(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:   "refresh " + proxiedArg,
		Short: "Have the upstream asked again",
		Long: `Have the upstream asked again with the next pull: for tags, for what was not there and
for signatures. What is cached stays, and serves if the upstream does not answer.
For administrators.`,
		Example: `  berth proxy refresh docker.io/library/nginx:latest
  berth proxy refresh docker.io`,
		Args: exactly(proxiedArg),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		p := parseProxied(args[0])
		return cl.gone(cl.RefreshProxy(ctx, p.proxy, p.image()))("%s is asked for again with the next pull", args[0])
	})
}

func newProxyPurge(s app.Streams) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "purge " + proxiedArg,
		Short: "Take images out of a pull-through cache",
		Long: `Take images out of a pull-through cache. What was pushed here stays, with the images that
it refers to. What is pulled again is fetched again. For administrators.`,
		Example: `  berth proxy purge docker.io/library/nginx:1.25
  berth proxy purge docker.io --all`,
		Args: exactly(proxiedArg),
	}
	c.Flags().BoolVar(&all, "all", false, "take out all that a proxy has, where no repository is named")
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		p := parseProxied(args[0])
		if p.repository == "" && !all {
			return cl.wrong("this takes out all that %s has cached: name a repository, or say --all", p.proxy)
		}
		freed, err := read[apiclient.ProxyFreed](cl.PurgeProxy(ctx, p.proxy, p.image()))
		if err != nil {
			return err
		}
		return cl.fields(freed, [][2]string{
			{"images", fmt.Sprint(freed.Images)}, {"manifests", fmt.Sprint(freed.Manifests)}, {"blobs", fmt.Sprint(freed.Blobs)},
			{"freed", formatSize(freed.Bytes)}, {"kept", fmt.Sprint(freed.Kept)},
		}...)
	})
}

func newProxyPrefetch(s app.Streams) *cobra.Command {
	var platforms []string
	c := &cobra.Command{
		Use:   "prefetch NAME/REPOSITORY:TAG",
		Short: "Bring an image into a pull-through cache",
		Long: `Bring an image into a pull-through cache: all of an index's platforms unless some are
named, all layers, and the signatures and SBOMs that refer to it. It ends when this
command does. For administrators.`,
		Example: "  berth proxy prefetch docker.io/library/nginx:1.27 --platform linux/amd64 --platform linux/arm64",
		Args:    exactly("NAME/REPOSITORY:TAG"),
	}
	c.Flags().StringArrayVar(&platforms, "platform", nil, "`OS/ARCH` that is wanted of an index; can be repeated")
	return talks(c, s, func(ctx context.Context, cl *client, args []string) error {
		p := parseProxied(args[0])
		if p.repository == "" || p.reference == "" {
			return cl.wrong("%q: name an image such as docker.io/library/nginx:1.27", args[0])
		}
		body := apiclient.ProxyPrefetch{Repository: p.repository, Reference: p.reference}
		if len(platforms) > 0 {
			body.Platforms = &platforms
		}
		last, err := lastLine[apiclient.ProxyProgress](cl.PrefetchProxy(ctx, p.proxy, body))(func(apiclient.ProxyProgress) error { return nil },
			func(l apiclient.ProxyProgress) bool { return value(l.Done) })
		if err != nil {
			return err
		}
		if err := cl.fields(last, [][2]string{
			{"manifests", fmt.Sprint(last.Manifests)}, {"blobs", fmt.Sprint(last.Blobs)}, {"size", formatSize(last.Bytes)}, {"failed", fmt.Sprint(last.Failed)},
		}...); err != nil {
			return err
		}
		if why := value(last.Error); why != "" {
			return errors.New(printable(why))
		}
		return nil
	})
}

func newProxyTest(s app.Streams) *cobra.Command {
	return talks(&cobra.Command{
		Use:   "test " + proxiedArg,
		Short: "Try all that a pull through a cache needs",
		Long: `Try all that a pull through a cache needs, from the server: address, log-in, and with an
image its manifest, a blob, referrers and tags. Says what is wrong and what to do.
For administrators.`,
		Example: `  berth proxy test docker.io
  berth proxy test docker.io/library/nginx:latest`,
		Args: exactly(proxiedArg),
	}, s, func(ctx context.Context, cl *client, args []string) error {
		p := parseProxied(args[0])
		if p.repository != "" && p.reference == "" {
			p.reference = "latest"
		}
		var steps []apiclient.ProxyStep
		last, err := lastLine[apiclient.ProxyStep](cl.TestProxy(ctx, p.proxy, p.image()))(func(step apiclient.ProxyStep) error {
			// Lines are repeated while a step takes long.
			if len(steps) > 0 && same(steps[len(steps)-1], step) {
				return nil
			}
			steps = append(steps, step)
			if cl.json {
				return nil
			}
			return printStep(cl.w, step)
		}, func(l apiclient.ProxyStep) bool { return value(l.Done) })
		if err != nil {
			return err
		}
		if cl.json {
			if err := cl.value(steps, nil); err != nil {
				return err
			}
		}
		switch why := value(last.Error); {
		case why != "":
			return errors.New(printable(why))
		case !last.Ok:
			return fmt.Errorf("a pull through %s does not work, or not in all ways", p.proxy)
		}
		return nil
	})
}

// same reports whether two lines say the same.
func same(a, b apiclient.ProxyStep) bool {
	return value(a.Endpoint) == value(b.Endpoint) && value(a.Name) == value(b.Name) && value(a.Detail) == value(b.Detail)
}

func printStep(w io.Writer, step apiclient.ProxyStep) error {
	state := "FAIL"
	switch {
	case value(step.Skipped):
		state = "skip"
	case step.Ok:
		state = "ok"
	}
	text := fmt.Sprintf("%-5s %-14s %s\n", state, value(step.Name), printable(value(step.Detail)))
	if advice := value(step.Advice); advice != "" {
		text += fmt.Sprintf("%-5s %-14s → %s\n", "", "", printable(advice))
	}
	_, err := io.WriteString(w, text)
	return err
}

// lastLine reads an answer of lines to the one that ends it. each is told of those
// before.
func lastLine[T any](resp *http.Response, err error) func(each func(T) error, ends func(T) bool) (T, error) {
	return func(each func(T) error, ends func(T) bool) (last T, _ error) {
		if err != nil {
			return last, unreachable(err)
		}
		defer resp.Body.Close()
		if err := problemOf(resp); err != nil {
			return last, err
		}
		dec := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
		for {
			var line T
			if err := dec.Decode(&line); err != nil {
				return last, fmt.Errorf("the server's answer broke off: %w", err)
			}
			if ends(line) {
				return line, nil
			}
			if err := each(line); err != nil {
				return last, err
			}
		}
	}
}
