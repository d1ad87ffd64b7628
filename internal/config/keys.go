package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/notation"
)

// kind is what a value looks like in YAML.
type kind int

const (
	text kind = iota
	boolean
	duration
	size
	number
	share
)

func (k kind) String() string {
	switch k {
	case boolean:
		return "true or false"
	case duration:
		return notation.DurationText
	case size:
		return notation.SizeText
	case number:
		return "a whole number"
	case share:
		return "a number from 0 to 1"
	default:
		return "text"
	}
}

// key is one scalar setting.
type key struct {
	path    string // in YAML: levels joined by dots
	kind    kind
	initial string // default value; "": none, or derived
	derived string // for documentation, where the default depends on another key
	doc     string
	set     func(*Config, string) error
	get     func(*Config) string
}

// env is the environment variable that sets the key.
func (k *key) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(k.path, ".", "_"))
}

// keys are all scalar settings, groups together, in the order they are printed.
var keys = []key{
	textKey("listen", "127.0.0.1:5000", "Address to serve on, host:port. On other than a loopback address log-in is always asked for.",
		func(c *Config) *string { return &c.Listen }, checkAddress),
	textKey("url", "", "Address that clients use, such as https://registry.example.com. Clients are sent there for tokens; without it only those that use an IP address or localhost are, all others log in with each request.",
		func(c *Config) *string { return &c.URL }, checkURL),
	textKey("other_urls", "", "More such addresses, separated by commas, for a registry with several names.",
		func(c *Config) *string { return &c.OtherURLs }, each(checkURL)),
	textKey("data", "./berth-data", "Folder of everything that is stored; made if absent. Relative paths begin where the server is started.",
		func(c *Config) *string { return &c.Data }, checkPresent, checkPath),
	boolKey("insecure_anonymous", "false", "Ask nobody to log in, on whatever address: everyone who reaches it may do everything.",
		func(c *Config) *bool { return &c.InsecureAnonymous }),
	textKey("tls.cert", "", "File with the TLS certificate and its chain, PEM. With `tls.key`, serves HTTPS.",
		func(c *Config) *string { return &c.TLS.Cert }, checkPath),
	textKey("tls.key", "", "File with the private key of `tls.cert`, PEM.",
		func(c *Config) *string { return &c.TLS.Key }, checkPath),
	textKey("metadata.sqlite.path", "", "File of the metadata database.",
		func(c *Config) *string { return &c.Metadata.SQLite.Path }, checkPath).derivedFrom("`data`/berth.db"),
	textKey("metadata.postgres.url", "", "PostgreSQL database for the metadata in place of the file: postgres://user@host/database. Its encoding must be UTF8. The password can stand in it, in `PGPASSWORD` or in `~/.pgpass`.",
		func(c *Config) *string { return &c.Metadata.Postgres.URL }, optional(checkPostgres)),
	numberKey("metadata.postgres.connections", "0", "How many connections to PostgreSQL this process opens at most. 0: 4 for each processor, and 16 at least. All replicas' together must fit into the server's `max_connections`.",
		func(c *Config) *int { return &c.Metadata.Postgres.Connections }, 0, 1000),
	durationKey("metadata.postgres.timeout", "10s", "How long a statement may take. A request that PostgreSQL does not answer within two seconds more gets 503.",
		func(c *Config) *time.Duration { return &c.Metadata.Postgres.Timeout }, time.Second),
	textKey("storage.folder.path", "", "Folder of the blobs.",
		func(c *Config) *string { return &c.Storage.Folder.Path }, checkPath).derivedFrom("`data`/blobs"),
	textKey("storage.s3.bucket", "", "Bucket of an S3 service for the blobs in place of the folder. Credentials come from where AWS' tools take them: environment, files, roles.",
		func(c *Config) *string { return &c.Storage.S3.Bucket }),
	textKey("storage.s3.region", "", "Region of the bucket, if the environment does not say it.",
		func(c *Config) *string { return &c.Storage.S3.Region }),
	textKey("storage.s3.endpoint", "", "URL of the S3 service, if it is not AWS'. Clients are sent there for blobs, unless `storage.s3.redirect` or `storage.s3.public_endpoint` says otherwise.",
		func(c *Config) *string { return &c.Storage.S3.Endpoint }, checkURL),
	boolKey("storage.s3.path_style", "false", "Put the bucket's name into the path instead of the host name.",
		func(c *Config) *bool { return &c.Storage.S3.PathStyle }),
	textKey("storage.s3.prefix", "", "What the names of objects in the bucket begin with, such as `berth/`.",
		func(c *Config) *string { return &c.Storage.S3.Prefix }),
	textKey("storage.s3.public_endpoint", "", "URL of the S3 service as clients reach it, if they do so by another than `storage.s3.endpoint`.",
		func(c *Config) *string { return &c.Storage.S3.PublicEndpoint }, checkURL),
	textKey("storage.s3.redirect", "always", "Which clients get blobs from the S3 service itself, by redirection to a URL that is signed for a while: `always` all, `never` none, `networks` those in `storage.s3.redirect_networks`. To all others Berth sends the bytes.",
		func(c *Config) *string { return &c.Storage.S3.Redirect }, oneOf("always", "never", "networks")),
	textKey("storage.s3.redirect_networks", "", "Addresses and networks of clients that reach the S3 service, separated by commas.",
		func(c *Config) *string { return &c.Storage.S3.RedirectNetworks }, each(checkNetwork)),
	durationKey("storage.s3.redirect_ttl", "20m", "How long such a URL is good, up to 12h. A blob that is deleted stays in the bucket for as long.",
		func(c *Config) *time.Duration { return &c.Storage.S3.RedirectTTL }, time.Minute).upTo(12 * time.Hour),
	sizeKey("storage.s3.part_size", "8MiB", "Size of the first parts of an upload, 5MiB to 64MiB; later ones are larger.",
		func(c *Config) *int64 { return &c.Storage.S3.PartSize }, 5<<20, 64<<20),
	boolKey("storage.s3.equal_parts", "false", "Make all parts of an upload `storage.s3.part_size` large, as some services demand; a blob then has at most 10 000 of them. Always on with Cloudflare R2.",
		func(c *Config) *bool { return &c.Storage.S3.EqualParts }),
	sizeKey("storage.s3.memory", "32MiB", "Buffers of one upload, at least 11MiB. A part that they have no room for goes through a file in `data`.",
		func(c *Config) *int64 { return &c.Storage.S3.Memory }, 11<<20, 64<<30),
	sizeKey("storage.s3.total_memory", "384MiB", "Buffers of all uploads together. What they have no room for goes through files in `data`.",
		func(c *Config) *int64 { return &c.Storage.S3.TotalMemory }, 1<<20, 1<<40),
	textKey("storage.s3.checksum", "crc32", "What the service checks the bytes it gets by: `crc32`, `md5` for services that refuse that, `none` for those that refuse both.",
		func(c *Config) *string { return &c.Storage.S3.Checksum }, oneOf("crc32", "md5", "none")),
	textKey("storage.s3.encryption", "", "Encryption by the service: `AES256` or `aws:kms`. None: what the bucket is set to.",
		func(c *Config) *string { return &c.Storage.S3.Encryption }, optional(oneOf("AES256", "aws:kms"))),
	textKey("storage.s3.kms_key", "", "Id or ARN of the key of `aws:kms`. None: the bucket's.",
		func(c *Config) *string { return &c.Storage.S3.KMSKey }),
	textKey("storage.s3.storage_class", "", "Storage class of the objects, such as `STANDARD_IA`. None: the bucket's.",
		func(c *Config) *string { return &c.Storage.S3.StorageClass }),
	numberKey("storage.s3.attempts", "8", "How often a request to the service is tried at most, 1 to 20, before the client is told to come back.",
		func(c *Config) *int { return &c.Storage.S3.Attempts }, 1, 20),
	durationKey("storage.s3.timeout", "10s", "How long the service may be silent: take no byte, or give none. Reading is tried again for as long, writing for twice as long; then the client is told to come back.",
		func(c *Config) *time.Duration { return &c.Storage.S3.Timeout }, time.Second),
	textKey("auth.mode", "auto", "Who must log in. `required`: everybody. `auto`: everybody, except on a loopback address while no user and no key exists, and neither `url` nor `http.trusted_proxies` says that others come through a proxy.",
		func(c *Config) *string { return &c.Auth.Mode }, oneOf("auto", "required")),
	durationKey("auth.token_ttl", "5m", "How long a token of the registry is good. Rights are looked up for each request all the same.",
		func(c *Config) *time.Duration { return &c.Auth.TokenTTL }, time.Minute),
	durationKey("auth.key_rotation", "30d", "How long a key signs tokens before a new one takes its place.",
		func(c *Config) *time.Duration { return &c.Auth.KeyRotation }, time.Hour),
	boolKey("auth.refresh_tokens", "false", "Give clients that ask for one (docker login does) a refresh token to keep in place of the password.",
		func(c *Config) *bool { return &c.Auth.RefreshTokens }),
	durationKey("auth.refresh_ttl", "90d", "How long a refresh token is good.",
		func(c *Config) *time.Duration { return &c.Auth.RefreshTTL }, time.Hour),
	textKey("auth.oidc.issuer", "", "URL of the OpenID Connect provider that people log in with (`berth login --oidc`).",
		func(c *Config) *string { return &c.Auth.OIDC.Issuer }, checkURL),
	textKey("auth.oidc.client_id", "", "This registry's client id at the provider. Its redirect address there is `url`/auth/callback.",
		func(c *Config) *string { return &c.Auth.OIDC.ClientID }),
	textKey("auth.oidc.client_secret_file", "", "File with the client's secret; empty for a public client.",
		func(c *Config) *string { return &c.Auth.OIDC.ClientSecretFile }, checkPath),
	textKey("auth.oidc.name_claim", "preferred_username", "Claim that a new user is named after.",
		func(c *Config) *string { return &c.Auth.OIDC.NameClaim }, checkPresent),
	textKey("auth.oidc.groups_claim", "groups", "Claim that lists the user's groups.",
		func(c *Config) *string { return &c.Auth.OIDC.GroupsClaim }, checkPresent),
	textKey("projects.newcomers", "closed", "What happens to those who come to a project that nobody has. `closed`: nothing. `open`: anybody pushes and pulls, and a push makes the project. `claim`: as `open`, and the first user who pushes owns it.",
		func(c *Config) *string { return &c.Projects.Newcomers }, oneOf("closed", "open", "claim")),
	durationKey("projects.retention", "7d", "How long a deleted project can be had back.",
		func(c *Config) *time.Duration { return &c.Projects.Retention }, 1),
	boolKey("read_only", "false", "Refuse all pushes and deletes.",
		func(c *Config) *bool { return &c.ReadOnly }),
	durationKey("audit.retention", "90d", "How long the audit trail goes back.",
		func(c *Config) *time.Duration { return &c.Audit.Retention }, 24*time.Hour),
	textKey("admin.listen", "", "Address to serve `/metrics` (Prometheus), `/traces`, `/healthz` and `/readyz` on, host:port; for those who run the registry, and not for its clients: nobody is asked to log in. None: `/metrics` and `/traces` are not to be had.",
		func(c *Config) *string { return &c.Admin.Listen }, optional(checkAddress)),
	textKey("tracing.endpoint", "", "URL of an OpenTelemetry collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; a path other than /v1/traces can be given. None: traces are sent nowhere. Headers for it, such as a token, come from `OTEL_EXPORTER_OTLP_HEADERS`.",
		func(c *Config) *string { return &c.Tracing.Endpoint }, checkURL),
	shareKey("tracing.sample", "0.01", "Share of the requests whose traces are sent, 0 to 1.",
		func(c *Config) *float64 { return &c.Tracing.Sample }),
	boolKey("tracing.from_proxies", "false", "Take over the traces of the proxies in `http.trusted_proxies`, and whether they are sent. The proxies must then not pass on the `traceparent` of their clients.",
		func(c *Config) *bool { return &c.Tracing.FromProxies }),
	textKey("log.level", "info", "What is logged: `debug`, `info`, `warn` or `error`, and all that is worse.",
		func(c *Config) *string { return &c.Log.Level }, oneOf("debug", "info", "warn", "error")),
	textKey("log.format", "text", "How it is logged: `text` or `json`.",
		func(c *Config) *string { return &c.Log.Format }, oneOf("text", "json")),
	durationKey("uploads.expire", "168h", "How long an upload that nobody continues can be resumed.",
		func(c *Config) *time.Duration { return &c.Uploads.Expire }, 1),
	durationKey("gc.interval", "1m", "Pause between two rounds of garbage collection.",
		func(c *Config) *time.Duration { return &c.GC.Interval }, 1),
	durationKey("gc.unreferenced_after", "24h", "How long a blob that no manifest names stays in its repository. Must be longer than the longest push.",
		func(c *Config) *time.Duration { return &c.GC.UnreferencedAfter }, 1),
	textKey("gc.untagged", keepForEver, "How long a manifest stays that has no tag, and that no index names: `keep` for ever, or a time such as 30d after that began, or a client last asked for it by its digest. Must be longer than the longest push. `repositories` can say otherwise.",
		func(c *Config) *string { return &c.GC.Untagged }, checkKeep),
	textKey("gc.orphans_after", "7d", "The same for one whose subject is gone or never came, such as the signature of an image that was deleted.",
		func(c *Config) *string { return &c.GC.OrphansAfter }, checkKeep),
	textKey("gc.rate", "1000/s", "How many rows and objects a second collection looks at, at most, such as `1000/s`; `0` for no bound.",
		func(c *Config) *string { return &c.GC.Rate }, checkRate),
	durationKey("gc.sweep_after", "1h", "How old what crashes left in an S3 bucket and no row knows must be to be removed (unfinished multipart uploads); looked for as often.",
		func(c *Config) *time.Duration { return &c.GC.SweepAfter }, 1),
	textKey("proxy.cache_size", "", "How much all caches keep together, such as `500GiB`; beyond it, what was not used for longest goes, whichever cache it is in. None: what each may keep. See [Proxies](#proxies).",
		func(c *Config) *string { return &c.Proxy.CacheSize }, optional(checkSize)),
	textKey("proxy.networks", "", "Private and local addresses and networks that may be dialled for every upstream, separated by commas. All others are refused, also when a public name leads there.",
		func(c *Config) *string { return &c.Proxy.Networks }, each(checkNetwork)),
	textKey("secrets.key_file", "", "File with a key of 32 bytes, in hexadecimal, that the secrets of managed proxies are encrypted with in the database. Without it they cannot be given any. Make one with `openssl rand -hex 32`; who loses it has to give the secrets again.",
		func(c *Config) *string { return &c.Secrets.KeyFile }, checkPath),
	durationKey("shutdown.delay", "0s", "How long requests are still served after SIGTERM while `/readyz` answers 503, so that a load balancer stops sending them here: longer than it takes to notice.",
		func(c *Config) *time.Duration { return &c.Shutdown.Delay }, 0),
	durationKey("shutdown.grace", "30s", "How long running requests may take to finish after SIGTERM.",
		func(c *Config) *time.Duration { return &c.Shutdown.Grace }, 0),
	textKey("http.trusted_proxies", "", "Addresses and networks of the proxies in front, separated by commas. Only what they say of a client's address (`Forwarded`, `X-Forwarded-For`) is believed.",
		func(c *Config) *string { return &c.HTTP.TrustedProxies }, each(checkNetwork)),
	durationKey("http.body_idle", "1m", "How long a client may send nothing of a body it announced before it is cut off; its upload can be resumed.",
		func(c *Config) *time.Duration { return &c.HTTP.BodyIdle }, 1),
}

func textKey(path, initial, doc string, field func(*Config) *string, checks ...func(string) error) key {
	checks = append(checks, checkPrintable)
	return key{
		path: path, kind: text, initial: initial, doc: doc,
		get: func(c *Config) string { return *field(c) },
		set: func(c *Config, value string) error {
			for _, check := range checks {
				if err := check(value); err != nil {
					return err
				}
			}
			*field(c) = value
			return nil
		},
	}
}

func boolKey(path, initial, doc string, field func(*Config) *bool) key {
	return key{
		path: path, kind: boolean, initial: initial, doc: doc,
		get: func(c *Config) string { return strconv.FormatBool(*field(c)) },
		set: func(c *Config, value string) error {
			b, err := strconv.ParseBool(value)
			if err != nil {
				return fmt.Errorf("must be %v, not %q", boolean, notation.Shown(value))
			}
			*field(c) = b
			return nil
		},
	}
}

func durationKey(path, initial, doc string, field func(*Config) *time.Duration, least time.Duration) key {
	return key{
		path: path, kind: duration, initial: initial, doc: doc,
		get: func(c *Config) string { return notation.FormatDuration(*field(c)) },
		set: func(c *Config, value string) error {
			d, err := notation.ParseDuration(value)
			if err != nil {
				return err
			}
			if d < least && least <= 1 {
				return fmt.Errorf("must be more than nothing, not %q", notation.Shown(value))
			}
			if d < least {
				return fmt.Errorf("must be at least %s, not %q", notation.FormatDuration(least), notation.Shown(value))
			}
			*field(c) = d
			return nil
		},
	}
}

// sizeKey is a number of bytes from least to most.
func sizeKey(path, initial, doc string, field func(*Config) *int64, least, most int64) key {
	return key{
		path: path, kind: size, initial: initial, doc: doc,
		get: func(c *Config) string { return notation.FormatSize(*field(c)) },
		set: func(c *Config, value string) error {
			n, err := notation.ParseSize(value)
			if err != nil {
				return err
			}
			if n < least || n > most {
				return fmt.Errorf("must be from %s to %s, not %q", notation.FormatSize(least), notation.FormatSize(most), notation.Shown(value))
			}
			*field(c) = n
			return nil
		},
	}
}

func shareKey(path, initial, doc string, field func(*Config) *float64) key {
	return key{
		path: path, kind: share, initial: initial, doc: doc,
		get: func(c *Config) string { return strconv.FormatFloat(*field(c), 'g', -1, 64) },
		set: func(c *Config, value string) error {
			f, err := strconv.ParseFloat(value, 64)
			if err != nil || !(f >= 0 && f <= 1) {
				return fmt.Errorf("must be %v, not %q", share, notation.Shown(value))
			}
			*field(c) = f
			return nil
		},
	}
}

func numberKey(path, initial, doc string, field func(*Config) *int, least, most int) key {
	return key{
		path: path, kind: number, initial: initial, doc: doc,
		get: func(c *Config) string { return strconv.Itoa(*field(c)) },
		set: func(c *Config, value string) error {
			n, err := parseNumber(value)
			if err != nil || n < least || n > most {
				return fmt.Errorf("must be a number from %d to %d, not %q", least, most, notation.Shown(value))
			}
			*field(c) = n
			return nil
		},
	}
}

// upTo bounds a duration from above.
func (k key) upTo(most time.Duration) key {
	set := k.set
	k.set = func(c *Config, value string) error {
		if d, err := notation.ParseDuration(value); err == nil && d > most {
			return fmt.Errorf("must be at most %s, not %q", notation.FormatDuration(most), notation.Shown(value))
		}
		return set(c, value)
	}
	return k
}

func (k key) derivedFrom(doc string) key {
	k.derived = doc
	return k
}

// findKey is the key with that path, or nil.
func findKey(path string) *key {
	for i := range keys {
		if keys[i].path == path {
			return &keys[i]
		}
	}
	return nil
}

// isGroup reports whether keys lie under path.
func isGroup(path string) bool {
	for i := range keys {
		if strings.HasPrefix(keys[i].path, path+".") {
			return true
		}
	}
	return false
}
