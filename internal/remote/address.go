package remote

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

// ParseAddress reads the address of a registry: http or https, a host, a port
// and a path behind which its API lies, "/v2/" not included.
func ParseAddress(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("registry address: %w", withoutURL(err))
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return nil, fmt.Errorf("registry address %q: write https://host or http://host:port", u.Redacted())
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, fmt.Errorf("registry address %q: only a scheme, a host, a port and a path belong here", u.Redacted())
	}
	base := strings.TrimSuffix(u.Path, "/")
	if base != "" && (path.Clean(base) != base || u.RawPath != "" || base != (&url.URL{Path: base}).EscapedPath()) {
		return nil, fmt.Errorf("registry address %q: its path may hold no dots, double slashes or escapes", u.Redacted())
	}
	if base == "/v2" || strings.HasSuffix(base, "/v2") {
		return nil, fmt.Errorf("registry address %q: leave /v2 at its end out", u.Redacted())
	}
	return &url.URL{Scheme: u.Scheme, Host: canonicalHost(u), Path: base}, nil
}

// canonicalHost is the host of u in small letters, without the port that its
// scheme has anyway.
func canonicalHost(u *url.URL) string {
	host := strings.ToLower(u.Host)
	for scheme, port := range map[string]string{"http": ":80", "https": ":443"} {
		if u.Scheme == scheme {
			host = strings.TrimSuffix(host, port)
		}
	}
	return strings.TrimSuffix(host, ":")
}

// at is the address of a resource of repo. What stands in path was validated
// and needs no escape.
func (r *Registry) at(repo, path string, query url.Values) *url.URL {
	u := *r.base
	u.Path += "/v2/" + repo + path
	u.RawQuery = query.Encode()
	return &u
}

// ours reports whether u is of the registry's own address: its origin and, of
// that, what lies behind its path. Others may own the rest.
func (r *Registry) ours(u *url.URL) bool {
	return u.Scheme == r.base.Scheme && canonicalHost(u) == r.base.Host && r.below(u.Path)
}

// below reports whether a path lies behind that of the registry, however dots
// and slashes in it may be read.
func (r *Registry) below(p string) bool {
	return r.base.Path == "" || !strings.Contains(p, "..") && strings.HasPrefix(p, r.base.Path+"/")
}

// back is where an answer of ours leads to, which must be at the registry
// again. One behind a proxy may not know that it is reached by TLS, or that its
// API lies behind a path.
func (r *Registry) back(u *url.URL) (*url.URL, bool) {
	own := &url.URL{Scheme: r.base.Scheme, Host: r.base.Host, Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}
	there := &url.URL{Scheme: r.base.Scheme, Host: u.Host}
	if host := canonicalHost(there); host != r.base.Host && canonicalHost(u) != r.base.Host {
		return nil, false
	}
	if !r.below(own.Path) && strings.HasPrefix(own.Path, "/v2/") && !strings.Contains(own.Path, "..") {
		own.Path = r.base.Path + own.Path
		if own.RawPath != "" {
			own.RawPath = r.base.Path + own.RawPath
		}
	}
	return own, r.below(own.Path)
}
