// Package config turns a file, the environment and flags into one typed,
// validated Config. One table of keys (keys.go) is all it knows: how each is
// parsed, named in the environment, printed and documented.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/notation"
	"github.com/berth-registry/berth/internal/proxyspec"
)

// Config is the whole configuration. Load makes it; what Load returned is
// valid and is not changed any more.
type Config struct {
	Listen            string // host:port
	URL, OtherURLs    string // see URLs
	Data              string // folder
	TLS               struct{ Cert, Key string }
	InsecureAnonymous bool
	ReadOnly          bool
	Metadata          struct {
		SQLite   struct{ Path string }
		Postgres struct {
			URL         string // "": SQLite
			Connections int    // 0: by the processors
			Timeout     time.Duration
		}
	}
	Storage struct {
		Folder struct{ Path string }
		S3     S3
	}
	Auth     Auth
	Projects struct {
		Newcomers string
		Retention time.Duration
	}
	Audit   struct{ Retention time.Duration }
	Admin   struct{ Listen string } // "": no such listener
	Tracing struct {
		Endpoint    string // "": none
		Sample      float64
		FromProxies bool
	}
	Log      struct{ Level, Format string }
	Uploads  struct{ Expire time.Duration }
	GC       GC
	Shutdown struct{ Delay, Grace time.Duration }
	HTTP     struct {
		BodyIdle       time.Duration
		TrustedProxies string // see Config.TrustedProxies
	}
	Repositories []Repository
	Proxy        struct {
		CacheSize string // see ProxyCacheSize
		Networks  string // see ProxyNetworks
	}
	Secrets  struct{ KeyFile string }
	Proxies  []proxyspec.Proxy
	Virtuals []proxyspec.Virtual

	origins map[string]string // key path → where its value came from; absent: the default
}

// S3 is a bucket for the blobs.
type S3 struct {
	Bucket, Region, Endpoint, Prefix string // no bucket: the folder
	PathStyle                        bool

	PublicEndpoint, Redirect string
	RedirectNetworks         string // see Config.RedirectNetworks
	RedirectTTL              time.Duration

	PartSize, Memory, TotalMemory    int64
	EqualParts                       bool
	Checksum                         string
	Encryption, KMSKey, StorageClass string
	Attempts                         int
	Timeout                          time.Duration
}

// GC is what is collected, and when.
type GC struct {
	Interval, UnreferencedAfter time.Duration
	SweepAfter                  time.Duration
	Untagged, OrphansAfter      string // see Config.Retention
	Rate                        string // see Config.CollectRate
}

// Auth is how callers prove who they are.
type Auth struct {
	Mode                  string
	TokenTTL, KeyRotation time.Duration
	RefreshTokens         bool
	RefreshTTL            time.Duration
	OIDC                  struct {
		Issuer, ClientID, ClientSecretFile string // no issuer: no such log-in
		NameClaim, GroupsClaim             string
	}
}

// URLs are the addresses that clients use, the main one first.
func (c *Config) URLs() []string {
	return append(list(c.URL), list(c.OtherURLs)...)
}

// TrustedProxies are the networks whose word on a client's address is taken.
func (c *Config) TrustedProxies() []netip.Prefix { return networks(c.HTTP.TrustedProxies) }

// RedirectNetworks are those whose clients are redirected to the S3 service,
// where storage.s3.redirect is "networks".
func (c *Config) RedirectNetworks() []netip.Prefix { return networks(c.Storage.S3.RedirectNetworks) }

// Repository is what holds for the repositories whose names match.
type Repository struct {
	Match           string // see Config.Sparse
	SparseManifests bool   // a manifest may name content that is not here
	Untagged        string // see Config.Retention; "": what other rules say
}

// Sparse reports whether repo may hold manifests whose content is absent. The
// last rule that matches decides. In a rule, * stands for any run of characters
// without a slash and ** for any run at all.
func (c *Config) Sparse(repo string) bool {
	for i := len(c.Repositories) - 1; i >= 0; i-- {
		if notation.MatchGlob(c.Repositories[i].Match, repo) {
			return c.Repositories[i].SparseManifests
		}
	}
	return false
}

// Sources are the places where settings come from, weakest first.
type Sources struct {
	File    string            // YAML; "": none
	Environ []string          // as os.Environ gives it; only BERTH_ variables are looked at
	Flags   map[string]string // key path ("tls.cert") → value, of the flags that were given
}

// Load reads the sources over the defaults. Its error joins all that is wrong
// in all of them, each line saying where.
func Load(s Sources) (*Config, error) {
	l := newLoader()
	if s.File != "" {
		l.readFile(s.File)
	}
	l.readEnviron(s.Environ)
	l.readFlags(s.Flags)
	return l.finish()
}

// maxProblems bounds how many errors one Load reports.
const maxProblems = 20

// loader is a Config in the making.
type loader struct {
	config   *Config
	problems []error
	places   map[string]string // of what stands in lists, by path: where in the file
}

func newLoader() *loader {
	l := &loader{config: &Config{origins: map[string]string{}}, places: map[string]string{}}
	for i := range keys {
		if k := &keys[i]; k.initial != "" {
			l.set(k, k.initial, "", "default of "+k.path)
		}
	}
	return l
}

// set gives a key its value from the source origin. Where is the beginning of
// the error message if the value is refused.
func (l *loader) set(k *key, value, origin, where string) {
	if err := k.set(l.config, value); err != nil {
		l.problem("%s: %w", where, err)
		return
	}
	l.config.origins[k.path] = origin
}

func (l *loader) problem(format string, args ...any) {
	switch {
	case len(l.problems) < maxProblems:
		l.problems = append(l.problems, fmt.Errorf(format, args...))
	case len(l.problems) == maxProblems:
		l.problems = append(l.problems, errors.New("and more; mend these first"))
	}
}

// finish derives what depends on other keys and checks what one key alone
// cannot show.
func (l *loader) finish() (*Config, error) {
	c := l.config
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		l.problem("tls.cert and tls.key belong together: set both or neither")
	}
	if (c.Auth.OIDC.Issuer == "") != (c.Auth.OIDC.ClientID == "") {
		l.problem("auth.oidc.issuer and auth.oidc.client_id belong together: set both or neither")
	}
	if c.Auth.OIDC.Issuer != "" && c.URL == "" {
		l.problem("auth.oidc needs url: the provider sends people back there")
	}
	if c.OtherURLs != "" && c.URL == "" {
		l.problem("other_urls needs url, the address that clients mostly use")
	}
	if c.InsecureAnonymous && c.Auth.Mode == "required" {
		l.problem("insecure_anonymous and auth.mode: required contradict each other: keep one")
	}
	if c.Metadata.Postgres.URL != "" && c.Metadata.SQLite.Path != "" {
		l.problem("metadata.sqlite.path and metadata.postgres.url exclude each other: keep one")
	}
	if c.Storage.S3.Bucket != "" && c.Storage.Folder.Path != "" {
		l.problem("storage.folder.path and storage.s3.bucket exclude each other: keep one")
	}
	l.checkS3(c.Storage.S3)
	l.checkProxies()
	if len(l.problems) > 0 {
		return nil, errors.Join(l.problems...)
	}
	if c.Metadata.Postgres.URL == "" {
		l.derive("metadata.sqlite.path", &c.Metadata.SQLite.Path, "berth.db")
	}
	if c.Storage.S3.Bucket == "" {
		l.derive("storage.folder.path", &c.Storage.Folder.Path, "blobs")
	}
	return c, nil
}

// checkS3 finds what contradicts itself.
func (l *loader) checkS3(o S3) {
	if (o.Redirect == "networks") != (o.RedirectNetworks != "") {
		l.problem("storage.s3.redirect: networks and storage.s3.redirect_networks belong together: set both or neither")
	}
	if o.KMSKey != "" && o.Encryption != "aws:kms" {
		l.problem("storage.s3.kms_key needs storage.s3.encryption: aws:kms")
	}
	if o.PublicEndpoint != "" && o.Redirect == "never" {
		l.problem("storage.s3.public_endpoint is for redirection, and storage.s3.redirect is never: keep one")
	}
	if strings.HasPrefix(o.Prefix, "/") {
		l.problem("storage.s3.prefix must not begin with a slash")
	}
}

// derive gives a path that nobody set its place in the data folder.
func (l *loader) derive(path string, p *string, name string) {
	if *p == "" {
		*p = filepath.Join(l.config.Data, name)
		delete(l.config.origins, path)
	}
}
