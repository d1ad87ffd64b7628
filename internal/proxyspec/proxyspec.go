// Package proxyspec is what an administrator says of a registry that Berth
// stands before as a cache. The configuration file and the management API share
// it: the same names, the same checks.
package proxyspec

import "time"

// Proxy is a pull-through cache of one upstream. The JSON names are those of the
// API and, in the same words, of the configuration file.
type Proxy struct {
	// Name is that of the project that is the cache, such as "docker.io": what
	// stands before the first slash of a repository's name here.
	Name string `json:"name"`
	// Upstreams are the addresses of the registry, in the order in which they are
	// tried: mirrors first. Each is http(s)://host[:port][/path]. Of a well-known
	// name, such as docker.io, it need not be said.
	Upstreams []string `json:"upstreams,omitempty"`
	// Hosts are names of this server (host or host:port) under which the upstream's
	// repositories have no prefix.
	Hosts []string `json:"hosts,omitempty"`
	// Namespaces are further values of the parameter ns that mean this upstream.
	// Name is always one.
	Namespaces []string `json:"namespaces,omitempty"`
	// Repositories are globs of the repositories, as the upstream names them, that
	// may be had; one that begins with "!" takes away. Empty: all.
	Repositories []string `json:"repositories,omitempty"`

	Credential Credential `json:"credential,omitzero"`
	TLS        TLS        `json:"tls,omitzero"`
	// HTTPProxy is the proxy that requests go through; "": what the environment
	// says; "none": none.
	HTTPProxy string `json:"http_proxy,omitempty"`
	// Networks are those, of private or local addresses, that may be dialled.
	Networks []string `json:"networks,omitempty"`
	// Realms are hosts of token services that are trusted although they share no
	// registrable domain with the upstream.
	Realms []string `json:"realms,omitempty"`
	// PlainHTTP allows http:// upstreams that are not on this machine.
	PlainHTTP bool `json:"plain_http,omitempty"`

	Tags      Tags      `json:"tags,omitzero"`
	Referrers Referrers `json:"referrers,omitzero"`
	Cache     Cache     `json:"cache,omitzero"`
	Limits    Limits    `json:"limits,omitzero"`
}

// Credential is how Berth proves who it is. At most one kind is given.
type Credential struct {
	Username     string `json:"username,omitempty"`
	Password     string `json:"password,omitempty"`      // write-only
	PasswordFile string `json:"password_file,omitempty"` // read again when it changes
	Token        string `json:"token,omitempty"`         // a bearer token; write-only
	TokenFile    string `json:"token_file,omitempty"`
	// Helper is the name of a program docker-credential-NAME on the path. Of the
	// configuration file alone.
	Helper string `json:"helper,omitempty"`
	// Exchange is "ecr", "gcp" or "acr": a cloud's own credentials are exchanged.
	Exchange string `json:"exchange,omitempty"`
}

// TLS to the upstream.
type TLS struct {
	CAFile string `json:"ca_file,omitempty"` // certificates besides those of the system
}

// Tags is for how long what the upstream said of a tag holds.
type Tags struct {
	TTL Duration `json:"ttl,omitempty"` // default 1 minute
	// TTLs are exceptions by pattern; the first that matches decides.
	TTLs     []TagTTL `json:"ttls,omitempty"`
	MaxStale Duration `json:"max_stale,omitempty"` // 0: no bound
	// OnUpstreamDelete is "keep" (default) or "follow".
	OnUpstreamDelete string   `json:"on_upstream_delete,omitempty"`
	KeepDeleted      Duration `json:"keep_deleted,omitempty"` // default 7 days
	Negative         Duration `json:"negative,omitempty"`     // default 30 s
}

// TagTTL is the time for tags that match a glob.
type TagTTL struct {
	Match string   `json:"match"`
	TTL   Duration `json:"ttl"` // "forever" is negative
}

// Referrers is what is done about signatures and SBOMs.
type Referrers struct {
	TTL      Duration `json:"ttl,omitempty"`       // default 5 minutes
	MaxStale Duration `json:"max_stale,omitempty"` // default 30 days
	// Push lets manifests with a subject be pushed into the cache. Default true.
	Push *bool `json:"push,omitempty"`
	// Unknown is "refuse" (default) or "local": what is answered when the
	// upstream's list cannot be had.
	Unknown string `json:"unknown,omitempty"`
	// Prefetch are artifact types, "*" for all, that come with an image. Legacy
	// cosign tags belong to "cosign".
	Prefetch []string `json:"prefetch,omitempty"`
}

// Cache is what is kept.
type Cache struct {
	Size    Size     `json:"size,omitempty"`     // bytes; 0: no bound
	MaxIdle Duration `json:"max_idle,omitempty"` // 0: no bound
	Pins    []string `json:"pins,omitempty"`     // globs of REPOSITORY[:TAG], as the upstream names them
}

// Limits of what the upstream is asked.
type Limits struct {
	Connections int    `json:"connections,omitempty"` // default 32
	Queue       int    `json:"queue,omitempty"`       // requests that wait for one; default 1000
	Requests    string `json:"requests,omitempty"`    // such as "100/m" or "2500/h"; "": no bound
	Bandwidth   Size   `json:"bandwidth,omitempty"`   // bytes a second; 0: no bound
	// Reserve is how many requests of the upstream's own allowance are left before
	// tags are asked for more seldom. Default 20.
	Reserve int `json:"reserve,omitempty"`
}

// Virtual is one name over several sources, in order.
type Virtual struct {
	Name string `json:"name"` // of the project
	// Sources are projects: of this registry, or caches. The first that is no cache
	// takes pushes.
	Sources []string `json:"sources"`
}

// Duration is written as "90s", "12h", "30d" or "forever".
type Duration time.Duration

// Size is written as a number of bytes or with a unit, as "500GiB".
type Size int64
