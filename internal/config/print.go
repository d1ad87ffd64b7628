package config

import (
	"bytes"
	"fmt"
	"io"
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
	_, err := w.Write(out.Bytes())
	return err
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
