package proxyspec

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/notation"
)

// Bounds of lists and texts.
const (
	maxUpstreams = 16
	maxHosts     = 64
	maxPatterns  = 1000
	maxNetworks  = 256
	maxSources   = 64
	maxText      = 1024
	maxSecret    = 32 << 10
	maxCount     = 1 << 20 // of connections and requests that wait
)

// FieldError says what is wrong with a field.
type FieldError struct {
	Field string // such as "upstreams[0]" or "tags.ttl"
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

func (e *FieldError) Unwrap() error { return e.Err }

// checker collects what is wrong.
type checker struct{ errs []error }

func (c *checker) add(field string, err error) {
	if err != nil {
		c.errs = append(c.errs, &FieldError{field, err})
	}
}

func (c *checker) addf(field, format string, args ...any) {
	c.add(field, fmt.Errorf(format, args...))
}

// each applies check to a list of no more than most.
func (c *checker) each(field string, list []string, most int, check func(string) error) {
	if len(list) > most {
		c.addf(field, "has %d entries; %d are the most", len(list), most)
		return
	}
	for i, s := range list {
		c.add(fmt.Sprintf("%s[%d]", field, i), check(s))
	}
}

// Check says what is wrong with a proxy: it joins a FieldError for each field.
func Check(p Proxy) error {
	c := &checker{}
	c.name(p.Name)
	c.upstreams(p)
	c.each("hosts", p.Hosts, maxHosts, checkHost)
	c.each("namespaces", p.Namespaces, maxHosts, checkNamespace)
	c.each("repositories", p.Repositories, maxPatterns, func(s string) error { return p.checkPattern(strings.TrimPrefix(s, "!")) })
	c.credential(p.Credential)
	c.add("tls.ca_file", checkPath(p.TLS.CAFile))
	c.add("http_proxy", checkHTTPProxy(p.HTTPProxy))
	c.each("networks", p.Networks, maxNetworks, checkNetwork)
	c.each("realms", p.Realms, maxHosts, checkHost)
	c.tags(p)
	c.referrers(p.Referrers)
	c.add("cache.size", notNegative(int64(p.Cache.Size)))
	c.each("cache.pins", p.Cache.Pins, maxPatterns, p.checkTagged)
	c.limits(p.Limits)
	return errors.Join(c.errs...)
}

func (c *checker) name(name string) {
	if name == "" {
		c.addf("name", "must be given: the name of the project that is the cache, such as docker.io")
		return
	}
	c.add("name", access.ValidProjectName(name))
}

func (c *checker) upstreams(p Proxy) {
	if len(p.Endpoints()) == 0 && p.Name != "" {
		c.addf("upstreams", "must be given, for %.64q is not a name whose address is known: write the registry's, such as https://%.64s", p.Name, p.Name)
	}
	c.each("upstreams", p.Upstreams, maxUpstreams, func(s string) error { return checkUpstream(s, p.PlainHTTP) })
}

func checkUpstream(s string, plain bool) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "" || len(s) > maxText || !printable(s) || strings.ContainsAny(s, "\"\\ "):
		return fmt.Errorf("must be an address such as https://registry.example.com, not %q", notation.Shown(s))
	case u.User != nil:
		return errors.New("must not hold a user or password: put them into credential")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return fmt.Errorf("must end with its path, without a query or fragment: %q", notation.Shown(s))
	case strings.Contains(u.Path, "/v2/") || strings.HasSuffix(u.Path, "/v2"):
		return fmt.Errorf("must end before /v2, which is added: %q", notation.Shown(s))
	case u.Scheme == "http" && !plain && !local(u.Hostname()):
		return fmt.Errorf("must be https://, unless plain_http: true allows what can be read and changed on the way: %q", notation.Shown(s))
	}
	return nil
}

// local reports whether a host is this machine.
func local(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

func checkHost(s string) error {
	if _, ok := NormalNamespace(s); !ok || strings.ToLower(s) != s || strings.HasSuffix(s, ".") {
		return fmt.Errorf("must be a host in lower case, or host:port, such as registry.example.com, not %q", notation.Shown(s))
	}
	return nil
}

func checkNamespace(s string) error {
	if _, ok := NormalNamespace(s); !ok {
		return fmt.Errorf("must be a host, or host:port, such as registry.example.com, not %q", notation.Shown(s))
	}
	return nil
}

// checkPattern checks a pattern of repositories. One that can match nothing is a
// mistake.
func (p *Proxy) checkPattern(s string) error {
	if err := notation.CheckGlob(s); err != nil {
		return err
	}
	if p.Library() && !strings.Contains(s, "/") && !strings.Contains(s, "**") {
		return fmt.Errorf("matches nothing: Docker Hub has what has a name of one part under library/; write library/%s", s)
	}
	return nil
}

// checkTagged checks a pattern of REPOSITORY or REPOSITORY:TAG.
func (p *Proxy) checkTagged(s string) error {
	repo, tag, tagged := strings.Cut(s, ":")
	if tagged {
		if err := checkTag(tag); err != nil {
			return err
		}
	}
	return p.checkPattern(repo)
}

func checkTag(s string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-*"
	if s == "" || len(s) > 128 || strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(allowed, r) }) || strings.Contains(s, "**") {
		return fmt.Errorf("a pattern of tags must be their letters and *, such as v1.*, not %q", notation.Shown(s))
	}
	return nil
}

func checkNetwork(s string) error {
	if _, err := notation.ParseNetwork(s); err != nil {
		return fmt.Errorf("must be an address or a network such as 10.0.0.0/8, not %q", notation.Shown(s))
	}
	return nil
}

func checkHTTPProxy(s string) error {
	if s == "" || s == "none" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) || u.Hostname() == "" || len(s) > maxText || !printable(s) {
		return fmt.Errorf("must be none or an address such as http://proxy.example.com:3128, not %q", notation.Shown(s))
	}
	return nil
}

// checkPath takes the name of a file, or none.
func checkPath(s string) error {
	if len(s) > maxText || !printable(s) || strings.Contains(s, "://") {
		return fmt.Errorf("must be a file on this machine, not %q", notation.Shown(s))
	}
	return nil
}

func (c *checker) credential(k Credential) {
	var given []string
	for _, kind := range []struct {
		name string
		is   bool
	}{
		{"password", k.Password != ""}, {"password_file", k.PasswordFile != ""}, {"token", k.Token != ""},
		{"token_file", k.TokenFile != ""}, {"helper", k.Helper != ""}, {"exchange", k.Exchange != ""},
	} {
		if kind.is {
			given = append(given, kind.name)
		}
	}
	if len(given) > 1 {
		c.addf("credential", "has %s; keep one", strings.Join(given, " and "))
	}
	withPassword := k.Password != "" || k.PasswordFile != ""
	switch {
	case k.Username != "" && len(given) == 0:
		c.addf("credential.username", "has no password: give password or password_file, too")
	case k.Username == "" && withPassword:
		c.addf("credential.username", "must be given with a password")
	case k.Username != "" && !withPassword:
		c.addf("credential.username", "belongs to a password, not to %s", given[0])
	case len(k.Username) > maxText || !printable(k.Username) || strings.Contains(k.Username, ":"):
		c.addf("credential.username", "must be text on one line without a colon")
	}
	for field, secret := range map[string]string{"credential.password": k.Password, "credential.token": k.Token} {
		if len(secret) > maxSecret || strings.ContainsAny(secret, "\r\n\x00") || field == "credential.token" && (!printable(secret) || strings.Contains(secret, " ")) {
			c.addf(field, "must be text on one line, of at most %d bytes", maxSecret)
		}
	}
	c.add("credential.password_file", checkPath(k.PasswordFile))
	c.add("credential.token_file", checkPath(k.TokenFile))
	if strings.ContainsFunc(k.Helper, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_.", r)
	}) || strings.HasPrefix(k.Helper, "-") || len(k.Helper) > 64 {
		c.addf("credential.helper", "must be the NAME of a program docker-credential-NAME, such as ecr-login, not %q", notation.Shown(k.Helper))
	}
	c.oneOf("credential.exchange", k.Exchange, "ecr", "gcp", "acr")
}

// oneOf takes one of some values, or none.
func (c *checker) oneOf(field, value string, values ...string) {
	if value != "" && !slices.Contains(values, value) {
		c.addf(field, "must be one of %s, not %q", strings.Join(values, ", "), notation.Shown(value))
	}
}

func (c *checker) tags(p Proxy) {
	if len(p.Tags.TTLs) > maxPatterns {
		c.addf("tags.ttls", "has %d entries; %d are the most", len(p.Tags.TTLs), maxPatterns)
		return
	}
	for i, t := range p.Tags.TTLs {
		repo, tag, both := strings.Cut(t.Match, ":")
		if !both {
			tag = repo
		}
		err := checkTag(tag)
		if both && err == nil {
			err = p.checkPattern(repo)
		}
		c.add(fmt.Sprintf("tags.ttls[%d].match", i), err)
	}
	c.oneOf("tags.on_upstream_delete", p.Tags.OnUpstreamDelete, "keep", "follow")
	if p.Tags.OnUpstreamDelete == "follow" && p.Tags.KeepDeleted != nil {
		c.addf("tags.keep_deleted", "is for on_upstream_delete: keep, and that is follow: keep one")
	}
	if p.Tags.Negative != nil && *p.Tags.Negative < 0 {
		c.addf("tags.negative", "must end: write a time such as 30s")
	}
}

func (c *checker) referrers(r Referrers) {
	c.oneOf("referrers.unknown", r.Unknown, "refuse", "local")
	c.each("referrers.prefetch", r.Prefetch, maxHosts, func(s string) error {
		if s == "" || len(s) > 255 || !printable(s) || strings.ContainsAny(s, " \"") {
			return fmt.Errorf("must be an artifact type such as application/vnd.in-toto+json, cosign, or * for all, not %q", notation.Shown(s))
		}
		return nil
	})
}

func (c *checker) limits(l Limits) {
	for _, n := range []struct {
		field string
		n     int
	}{{"connections", l.Connections}, {"queue", l.Queue}} {
		if n.n < 0 || n.n > maxCount {
			c.addf("limits."+n.field, "must be a number from 1 to %d, not %d", maxCount, n.n)
		}
	}
	if l.Reserve != nil && *l.Reserve < 0 {
		c.addf("limits.reserve", "must not be negative")
	}
	_, err := ParseRate(l.Requests)
	c.add("limits.requests", err)
	c.add("limits.bandwidth", notNegative(int64(l.Bandwidth)))
}

func notNegative(n int64) error {
	if n < 0 {
		return errors.New("must not be negative")
	}
	return nil
}

// CheckManaged is Check for what came over the API: who may use it must not read
// files of the server or have it run programs, nor reach with it what is closed to
// them, nor send its own identity anywhere.
func CheckManaged(p Proxy) error {
	c := &checker{}
	const disk = "is for the configuration file alone: it would read the server's disk, or run a program on it"
	for _, f := range []struct{ field, given, why string }{
		{"credential.password_file", p.Credential.PasswordFile, disk}, {"credential.token_file", p.Credential.TokenFile, disk},
		{"credential.helper", p.Credential.Helper, disk}, {"tls.ca_file", p.TLS.CAFile, disk},
		{"credential.exchange", p.Credential.Exchange, "is for the configuration file alone: it would show the server's own identity at its cloud to the upstream"},
		{"networks", strings.Join(p.Networks, ", "), "is for the configuration file alone: list there, under proxy.networks, the private networks that may be dialled for all"},
	} {
		if f.given != "" {
			c.addf(f.field, "%s", f.why)
		}
	}
	if p.HTTPProxy != "" && p.HTTPProxy != notation.Redacted(p.HTTPProxy) {
		c.addf("http_proxy", "a password in it is for the configuration file alone: it would be shown to who lists proxies")
	}
	return errors.Join(Check(p), errors.Join(c.errs...))
}

// CheckVirtual says what is wrong with a virtual project, as Check does.
func CheckVirtual(v Virtual) error {
	c := &checker{}
	if v.Name == "" {
		c.addf("name", "must be given: the name of the project")
	} else {
		c.add("name", access.ValidProjectName(v.Name))
	}
	if len(v.Sources) == 0 {
		c.addf("sources", "must name at least one project, such as [team, docker.io]")
	}
	seen := map[string]bool{}
	c.each("sources", v.Sources, maxSources, func(s string) error {
		if s == v.Name || seen[s] {
			return fmt.Errorf("%q stands here twice, or is the virtual project itself", notation.Shown(s))
		}
		seen[s] = true
		return access.ValidProjectName(s)
	})
	return errors.Join(c.errs...)
}

// CheckSet says what is wrong with proxies and virtual projects together: two
// must not be meant by one name. Fields begin with proxies[i] or virtual[i].
func CheckSet(proxies []Proxy, virtuals []Virtual) error {
	c := &checker{}
	names, namespaces, hosts := taken{}, taken{}, taken{}
	for i := range proxies {
		p, at := &proxies[i], fmt.Sprintf("proxies[%d]", i)
		c.add(at+".name", names.take(p.Name, at))
		for _, ns := range p.AllNamespaces() {
			c.add(at+".namespaces", namespaces.take(ns, at))
		}
		for j, h := range p.Hosts {
			c.add(fmt.Sprintf("%s.hosts[%d]", at, j), hosts.take(h, at))
		}
	}
	for i, v := range virtuals {
		at := fmt.Sprintf("virtual[%d]", i)
		c.add(at+".name", names.take(v.Name, at))
	}
	for i, v := range virtuals {
		for j, s := range v.Sources {
			if strings.HasPrefix(names[s], "virtual") {
				c.addf(fmt.Sprintf("virtual[%d].sources[%d]", i, j), "%q is virtual itself; name its sources", notation.Shown(s))
			}
		}
	}
	return errors.Join(c.errs...)
}

// taken says who has a name.
type taken map[string]string

func (t taken) take(name, by string) error {
	if other := t[name]; other != "" && other != by {
		return fmt.Errorf("%q is that of %s already; keep one", notation.Shown(name), other)
	}
	t[name] = by
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
