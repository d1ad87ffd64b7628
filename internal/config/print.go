package config

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	"github.com/berth-registry/berth/internal/notation"
)

// Print writes the effective configuration as YAML that Load would take. Each
// value has a comment that tells where it came from: default, file, the
// variable, or flag. Passwords in URLs are hidden.
func (c *Config) Print(w io.Writer) error {
	var out bytes.Buffer
	var group []string
	for i := range keys {
		k := &keys[i]
		parts := strings.Split(k.path, ".")
		levels, name := parts[:len(parts)-1], parts[len(parts)-1]
		for depth, level := range levels {
			if depth >= len(group) || group[depth] != level {
				fmt.Fprintf(&out, "%s%s:\n", indent(depth), level)
				group = levels[:depth+1]
			}
		}
		group = levels
		origin := c.origins[k.path]
		if origin == "" {
			origin = "default"
		}
		fmt.Fprintf(&out, "%s%s: %s # %s\n", indent(len(levels)), name, literal(k.kind, k.get(c)), origin)
	}
	if len(c.Repositories) == 0 {
		fmt.Fprintf(&out, "%s: [] # default\n", repositoriesKey)
	} else {
		fmt.Fprintf(&out, "%s:\n", repositoriesKey)
	}
	for _, r := range c.Repositories {
		fmt.Fprintf(&out, "  - match: %s # file\n    sparse_manifests: %t # file\n", literal(text, r.Match), r.SparseManifests)
		if r.Untagged != "" {
			fmt.Fprintf(&out, "    untagged: %s # file\n", literal(text, r.Untagged))
		}
	}
	printSpecs(&out, proxiesKey, c.Proxies)
	printSpecs(&out, virtualKey, c.Virtuals)
	_, err := w.Write(out.Bytes())
	return err
}

// printSpecs writes a list of what the file describes, without its secrets.
func printSpecs[T any](out *bytes.Buffer, key string, list []T) {
	if len(list) == 0 {
		fmt.Fprintf(out, "%s: [] # default\n", key)
		return
	}
	fmt.Fprintf(out, "%s:\n", key)
	for _, item := range list {
		printFields(out, reflect.ValueOf(item), "  - ", "    ")
	}
}

// printFields writes the fields of a struct that are set. The first line begins
// with first, all others with lead.
func printFields(out *bytes.Buffer, v reflect.Value, first, lead string) {
	for i := range v.NumField() {
		f, field := v.Type().Field(i), v.Field(i)
		if field.IsZero() && strings.Contains(f.Tag.Get("json"), ",omit") {
			continue
		}
		if field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		fmt.Fprintf(out, "%s%s:", first, jsonName(f))
		first = lead
		below := lead + "  "
		switch {
		case field.Kind() == reflect.Struct:
			out.WriteByte('\n')
			printFields(out, field, below, below)
		case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct:
			out.WriteByte('\n')
			for j := range field.Len() {
				printFields(out, field.Index(j), below+"- ", below+"  ")
			}
		case f.Tag.Get("secret") != "":
			fmt.Fprintf(out, " %s # file\n", literal(text, hiddenSecret))
		default:
			fmt.Fprintf(out, " %s # file\n", specLiteral(field))
		}
	}
}

// hiddenSecret is printed in place of one.
const hiddenSecret = "(hidden)"

// specLiteral is a scalar or a list of texts as YAML.
func specLiteral(v reflect.Value) string {
	if v.Kind() == reflect.Slice {
		items := make([]string, v.Len())
		for i := range items {
			items[i] = specLiteral(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	if v.Kind() == reflect.String {
		return literal(text, v.String())
	}
	if s, ok := v.Interface().(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprint(v.Interface())
}

func indent(depth int) string { return strings.Repeat("  ", depth) }

// literal is value as YAML. Text is always quoted, so that none of it is taken
// for a number or a list.
func literal(k kind, value string) string {
	if k == text {
		return strconv.Quote(notation.Redacted(value))
	}
	return value
}
