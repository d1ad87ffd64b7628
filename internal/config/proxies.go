package config

import (
	"encoding"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/berth-registry/berth/internal/notation"
	"github.com/berth-registry/berth/internal/proxyspec"
)

const (
	proxiesKey = "proxies"
	virtualKey = "virtual"
	maxProxies = 1000
)

// ProxyNetworks are those, of private and local addresses, that may be dialled
// for every upstream.
func (c *Config) ProxyNetworks() []netip.Prefix { return networks(c.Proxy.Networks) }

// ProxyCacheSize is how many bytes all caches keep together; 0: no bound.
func (c *Config) ProxyCacheSize() int64 {
	n, _ := notation.ParseSize(c.Proxy.CacheSize) // Load has checked it
	return n
}

// ReservedProject says what keeps a project's name for itself, a proxy or a
// virtual project of the file; "": nothing.
func (c *Config) ReservedProject(name string) string {
	switch {
	case slices.ContainsFunc(c.Proxies, func(p proxyspec.Proxy) bool { return p.Name == name }):
		return proxiesKey
	case slices.ContainsFunc(c.Virtuals, func(v proxyspec.Virtual) bool { return v.Name == name }):
		return virtualKey
	}
	return ""
}

func checkSize(value string) error {
	_, err := notation.ParseSize(value)
	return err
}

// proxies reads the list of upstreams.
func (f *file) proxies(n ast.Node) {
	specs(f, proxiesKey, n, proxyspec.Check, func(p proxyspec.Proxy) { f.config.Proxies = append(f.config.Proxies, p) })
}

// virtuals reads the list of virtual projects.
func (f *file) virtuals(n ast.Node) {
	specs(f, virtualKey, n, proxyspec.CheckVirtual, func(v proxyspec.Virtual) { f.config.Virtuals = append(f.config.Virtuals, v) })
}

// specs reads a list of what a struct with json tags describes, and checks each.
func specs[T any](f *file, key string, n ast.Node, check func(T) error, add func(T)) {
	if n == nil || n.Type() == ast.NullType {
		return
	}
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		f.problemAt(n.GetToken(), "%s must be a list, each of its items beginning with - name:, not %s", key, describe(n))
		return
	}
	if len(list.Values) > maxProxies {
		f.problemAt(n.GetToken(), "%s has %d items; %d are the most", key, len(list.Values), maxProxies)
		return
	}
	for i, item := range list.Values {
		var v T
		path, before := fmt.Sprintf("%s[%d]", key, i), len(f.problems)
		f.fill(path, list.GetToken(), item, reflect.ValueOf(&v).Elem())
		if len(f.problems) == before {
			f.fields(path+".", check(v))
		}
		add(v)
	}
}

// fields reports errors of fields, which lie below path, where the fields stand.
func (l *loader) fields(path string, err error) {
	for _, err := range flat(err) {
		field := (*proxyspec.FieldError)(nil)
		if !errors.As(err, &field) {
			l.problem("%s%w", path, err)
			continue
		}
		full := path + field.Field
		place := ""
		for at := full; place == "" && at != ""; at = at[:max(strings.LastIndexAny(at, ".["), 0)] {
			place = l.places[at]
		}
		l.problem("%s: %s: %w", place, full, field.Err)
	}
}

// flat are the errors that one joins.
func flat(err error) (all []error) {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			all = append(all, flat(e)...)
		}
		return all
	}
	return []error{err}
}

// fill gives v, which is what lies at path, the value of n.
func (f *file) fill(path string, at *token.Token, n ast.Node, v reflect.Value) {
	if n != nil && n.GetToken() != nil {
		at = n.GetToken()
	}
	f.places[path] = f.place(at)
	if text, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if value, ok := f.value(path, kindOf(v), at, n); ok {
			if err := text.UnmarshalText([]byte(value)); err != nil {
				f.problemAt(at, "%s: %w", path, err)
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(path, at, n, v.Elem())
	case reflect.Struct:
		f.mapping(n, path, func(name string, at *token.Token, value ast.Node) {
			if i := fieldNamed(v.Type(), name); i >= 0 {
				f.fill(path+"."+name, at, value, v.Field(i))
				return
			}
			f.unknown(withoutIndexes(path)+"."+name, at)
		})
	case reflect.Slice:
		f.fillList(path, at, n, v)
	default:
		f.fillScalar(path, at, n, v)
	}
}

func (f *file) fillList(path string, at *token.Token, n ast.Node, v reflect.Value) {
	list, ok := n.(*ast.SequenceNode)
	switch {
	case n == nil || n.Type() == ast.NullType:
		f.problemAt(at, "%s has no value; give it one or remove the line", path)
		return
	case !ok:
		f.problemAt(at, "%s must be a list such as [a, b], not %s", path, describe(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values)))
	for i, item := range list.Values {
		f.fill(fmt.Sprintf("%s[%d]", path, i), list.GetToken(), item, v.Index(i))
	}
}

func (f *file) fillScalar(path string, at *token.Token, n ast.Node, v reflect.Value) {
	value, ok := f.value(path, kindOf(v), at, n)
	if !ok {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(value)
	case reflect.Bool:
		v.SetBool(value == "true")
	default:
		n, err := parseNumber(value)
		if err != nil {
			f.problemAt(at, "%s: %w", path, err)
			return
		}
		v.SetInt(int64(n))
	}
}

// kindOf is how a field is written.
func kindOf(v reflect.Value) kind {
	switch v.Interface().(type) {
	case proxyspec.Duration:
		return duration
	case proxyspec.Size:
		return size
	}
	switch v.Kind() {
	case reflect.Bool:
		return boolean
	case reflect.Int:
		return number
	}
	return text
}

// jsonName is what a field is called.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func fieldNamed(t reflect.Type, name string) int {
	for i := range t.NumField() {
		if jsonName(t.Field(i)) == name {
			return i
		}
	}
	return -1
}

// withoutIndexes is a path as keyPaths has it.
func withoutIndexes(path string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(path, "[")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		_, path, _ = strings.Cut(rest, "]")
	}
}

// specField is a field of a list's items that can be set.
type specField struct {
	path, doc string
	field     reflect.StructField
}

// specFields are all fields below a type, in order.
func specFields(t reflect.Type, path string) (all []specField) {
	for i := range t.NumField() {
		f := t.Field(i)
		below := f.Type
		if below.Kind() == reflect.Slice {
			below = below.Elem()
		}
		full := strings.TrimPrefix(path+"."+jsonName(f), ".")
		if doc := f.Tag.Get("doc"); doc != "" {
			all = append(all, specField{full, doc, f})
		}
		if below.Kind() == reflect.Struct {
			all = append(all, specFields(below, full)...)
		}
	}
	return all
}

// checkProxies finds what contradicts other proxies, or the addresses of this
// server.
func (l *loader) checkProxies() {
	c := l.config
	l.fields("", proxyspec.CheckSet(c.Proxies, c.Virtuals))
	own := map[string]bool{}
	for _, base := range c.URLs() {
		if u, err := url.Parse(base); err == nil {
			name, _ := proxyspec.NormalNamespace(u.Host)
			own[name] = true
		}
	}
	for i, p := range c.Proxies {
		for j, h := range p.Hosts {
			if name, _ := proxyspec.NormalNamespace(h); own[name] {
				path := fmt.Sprintf("%s[%d].hosts[%d]", proxiesKey, i, j)
				l.problem("%s: %s: %q is this server's own url, under which all repositories have their prefix; give the proxy another name", l.places[path], path, h)
			}
		}
	}
}
