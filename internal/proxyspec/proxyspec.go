// Package proxyspec is what an administrator says of a registry that Berth
// stands before as a cache. The configuration file and the management API share
// it: the same names, the same checks.
package proxyspec

// Proxy is a pull-through cache of one upstream. The JSON names are those of the
// API and, in the same words, of the configuration file; the doc tags are their
// documentation in both. Where a time is absent its default holds.
type Proxy struct {
	Name         string   `json:"name" doc:"Name of the project that is the cache, such as docker.io: what stands before the first slash of a repository's name here. Must be given."`
	Upstreams    []string `json:"upstreams,omitempty" doc:"Addresses of the registry, in the order in which they are tried, mirrors first: http(s)://host[:port][/path]. Of well-known names, such as docker.io, ghcr.io or quay.io, they need not be given."`
	Hosts        []string `json:"hosts,omitempty" doc:"Names of this server, host or host:port, under which the upstream's repositories have no prefix."`
	Namespaces   []string `json:"namespaces,omitempty" doc:"More values of the parameter ns, which containerd sends, that mean this upstream. The name is always one."`
	Repositories []string `json:"repositories,omitempty" doc:"Patterns of the repositories, as the upstream names them, that may be had: * stands for any characters but a slash, ** for any at all; one that begins with ! takes away. None: all."`

	Credential Credential `json:"credential,omitzero" doc:"How Berth proves to the upstream who it is; at most one kind. None: anonymously."`
	TLS        TLS        `json:"tls,omitzero"`
	HTTPProxy  string     `json:"http_proxy,omitempty" doc:"URL of the HTTP proxy that requests go through, or none. Default: what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say."`
	Networks   []string   `json:"networks,omitempty" doc:"Private and local addresses or networks, such as 10.0.0.0/8, that may be dialled for this upstream. See proxy.networks, too."`
	Realms     []string   `json:"realms,omitempty" doc:"Hosts of token services that get the credentials although they share no registrable domain with the upstream."`
	PlainHTTP  bool       `json:"plain_http,omitempty" doc:"Allow http:// upstreams that are not on this machine: what they send, and what they are sent, can be read and changed on the way."`

	Tags      Tags      `json:"tags,omitzero"`
	Referrers Referrers `json:"referrers,omitzero"`
	Cache     Cache     `json:"cache,omitzero"`
	Limits    Limits    `json:"limits,omitzero"`
}

// Credential is how Berth proves who it is. At most one kind is given.
type Credential struct {
	Username     string `json:"username,omitempty" doc:"User name, of a password."`
	Password     string `json:"password,omitempty" secret:"true" doc:"Password or access token of that user. It is never shown again."`
	PasswordFile string `json:"password_file,omitempty" disk:"true" doc:"File with the password; read again when it changes."`
	Token        string `json:"token,omitempty" secret:"true" doc:"Bearer token that goes with every request. It is never shown again."`
	TokenFile    string `json:"token_file,omitempty" disk:"true" doc:"File with such a token; read again when it changes."`
	Helper       string `json:"helper,omitempty" disk:"true" doc:"NAME of a program docker-credential-NAME on the path, which speaks Docker's protocol."`
	Exchange     string `json:"exchange,omitempty" doc:"Cloud whose credentials, from where its tools take them, are exchanged for the registry's: ecr, gcp or acr."`
}

// TLS to the upstream.
type TLS struct {
	CAFile string `json:"ca_file,omitempty" disk:"true" doc:"File with certificates, PEM, that the upstream's may be signed by, besides those of the system."`
}

// Tags is for how long what the upstream said of a tag holds.
type Tags struct {
	TTL              *Duration `json:"ttl,omitempty" doc:"For how long a tag is not asked for again; forever: never. Default 1m."`
	TTLs             []TagTTL  `json:"ttls,omitempty" doc:"Exceptions; the first that matches decides."`
	MaxStale         *Duration `json:"max_stale,omitempty" doc:"How old what the upstream last said may be when it does not answer. Default forever."`
	OnUpstreamDelete string    `json:"on_upstream_delete,omitempty" doc:"What becomes of a tag that the upstream deletes: keep for keep_deleted, or follow at once. Default keep."`
	KeepDeleted      *Duration `json:"keep_deleted,omitempty" doc:"How long it is kept. Default 7d."`
	Negative         *Duration `json:"negative,omitempty" doc:"For how long it is believed that something is not there. Default 30s."`
}

// TagTTL is the time for tags that match a pattern.
type TagTTL struct {
	Match string   `json:"match" doc:"Pattern of TAG, or of REPOSITORY:TAG as the upstream names it."`
	TTL   Duration `json:"ttl" doc:"For how long such a tag is not asked for again; 0s: it always is; forever: never."`
}

// Referrers is what is done about signatures and SBOMs.
type Referrers struct {
	TTL      *Duration `json:"ttl,omitempty" doc:"For how long a list of referrers is not asked for again. Default 5m."`
	MaxStale *Duration `json:"max_stale,omitempty" doc:"How old such a list may be when the upstream does not answer. Default 30d."`
	Push     *bool     `json:"push,omitempty" doc:"Let who may push to the project push manifests with a subject, such as signatures of their own. Default true."`
	Unknown  string    `json:"unknown,omitempty" doc:"What is answered when nothing is known of the upstream's list and it cannot be had: refuse, for a short list reads as not signed, or local for what was pushed here. Default refuse."`
	Prefetch []string  `json:"prefetch,omitempty" doc:"Artifact types that come with an image, so that it can be verified while the upstream is gone; * for all, cosign for tags such as sha256-….sig."`
}

// Cache is what is kept.
type Cache struct {
	Size    Size      `json:"size,omitempty" doc:"How much is kept; beyond it, what was not used for longest goes. Default: no bound."`
	MaxIdle *Duration `json:"max_idle,omitempty" doc:"What nobody asked for in this time goes. Default forever."`
	Pins    []string  `json:"pins,omitempty" doc:"Patterns of REPOSITORY or REPOSITORY:TAG, as the upstream names them, of what never goes."`
}

// Limits of what the upstream is asked.
type Limits struct {
	Connections int    `json:"connections,omitempty" doc:"Requests to the upstream at a time. Default 32."`
	Queue       int    `json:"queue,omitempty" doc:"Requests that wait for one to end; what comes then is answered 429. Default 1000."`
	Requests    string `json:"requests,omitempty" doc:"How many requests in a time, such as 10/s, 100/m or 2500/h. Default: no bound."`
	Bandwidth   Size   `json:"bandwidth,omitempty" doc:"Bytes a second. Default: no bound."`
	Reserve     *int   `json:"reserve,omitempty" doc:"How many requests of the upstream's own allowance are left when tags begin to be asked for more seldom. Default 20."`
}

// Virtual is one name over several sources, in order.
type Virtual struct {
	Name    string   `json:"name" doc:"Name of the project. Must be given."`
	Sources []string `json:"sources" doc:"Projects, of this registry or caches, in the order in which they are asked. The first that is no cache takes pushes."`
}
