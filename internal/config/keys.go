package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// kind is what a value looks like in YAML.
type kind int

const (
	text kind = iota
	boolean
	duration
)

func (k kind) String() string {
	switch k {
	case boolean:
		return "true or false"
	case duration:
		return "a duration such as 90s, 24h or 7d"
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
	textKey("listen", "127.0.0.1:5000", "Address to serve on, host:port. Other than on a loopback address, log-in must be configured (`auth.htpasswd`).",
		func(c *Config) *string { return &c.Listen }, checkAddress),
	textKey("data", "./berth-data", "Folder of everything that is stored; made if absent. Relative paths begin where the server is started.",
		func(c *Config) *string { return &c.Data }, checkPresent, checkPath),
	boolKey("insecure_anonymous", "false", "Serve without log-in on an address that others can reach.",
		func(c *Config) *bool { return &c.InsecureAnonymous }),
	textKey("tls.cert", "", "File with the TLS certificate and its chain, PEM. With `tls.key`, serves HTTPS.",
		func(c *Config) *string { return &c.TLS.Cert }, checkPath),
	textKey("tls.key", "", "File with the private key of `tls.cert`, PEM.",
		func(c *Config) *string { return &c.TLS.Key }, checkPath),
	textKey("metadata.sqlite.path", "", "File of the metadata database.",
		func(c *Config) *string { return &c.Metadata.SQLite.Path }, checkPath).derivedFrom("`data`/berth.db"),
	textKey("storage.folder.path", "", "Folder of the blobs.",
		func(c *Config) *string { return &c.Storage.Folder.Path }, checkPath).derivedFrom("`data`/blobs"),
	textKey("auth.htpasswd", "", "File of users and bcrypt hashes; a line of it is made by `htpasswd -nbB USER PASSWORD`. Read again when it changes.",
		func(c *Config) *string { return &c.Auth.Htpasswd }, checkPath),
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
	durationKey("shutdown.grace", "30s", "How long running requests may take to finish after SIGTERM.",
		func(c *Config) *time.Duration { return &c.Shutdown.Grace }, 0),
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
				return fmt.Errorf("must be %v, not %q", boolean, shown(value))
			}
			*field(c) = b
			return nil
		},
	}
}

func durationKey(path, initial, doc string, field func(*Config) *time.Duration, least time.Duration) key {
	return key{
		path: path, kind: duration, initial: initial, doc: doc,
		get: func(c *Config) string { return formatDuration(*field(c)) },
		set: func(c *Config, value string) error {
			d, err := parseDuration(value)
			if err != nil {
				return err
			}
			if d < least {
				return fmt.Errorf("must be more than nothing, not %q", shown(value))
			}
			*field(c) = d
			return nil
		},
	}
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
