package config

import (
	"fmt"
	"reflect"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/berth-registry/berth/internal/proxyspec"

	"github.com/berth-registry/berth/internal/notation"
)

const (
	repositoriesKey = "repositories"
	matchKey        = repositoriesKey + ".match"
	sparseKey       = repositoriesKey + ".sparse_manifests"
	untaggedKey     = repositoriesKey + ".untagged"
)

// maxRules bounds the list of repositories: it is searched on each push.
const maxRules = 1000

// keyPaths are all keys that a file may have.
func keyPaths() []string {
	paths := make([]string, 0, len(keys)+3)
	for i := range keys {
		paths = append(paths, keys[i].path)
	}
	paths = append(paths, matchKey, sparseKey, untaggedKey)
	for _, f := range specFields(reflect.TypeFor[proxyspec.Proxy](), proxiesKey) {
		paths = append(paths, f.path)
	}
	for _, f := range specFields(reflect.TypeFor[proxyspec.Virtual](), virtualKey) {
		paths = append(paths, f.path)
	}
	return paths
}

// repositories reads the list of rules.
func (f *file) repositories(n ast.Node) {
	if n == nil || n.Type() == ast.NullType {
		return
	}
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		f.problemAt(n.GetToken(), "%s must be a list of rules, each beginning with - match:, not %s", repositoriesKey, describe(n))
		return
	}
	if len(list.Values) > maxRules {
		f.problemAt(n.GetToken(), "%s has %d rules; %d are the most", repositoriesKey, len(list.Values), maxRules)
		return
	}
	for i, item := range list.Values {
		f.rule(fmt.Sprintf("%s[%d]", repositoriesKey, i), list.GetToken(), item)
	}
}

// rule reads one item of the list; at stands for it where it is empty.
func (f *file) rule(path string, at *token.Token, n ast.Node) {
	if n != nil && n.GetToken() != nil {
		at = n.GetToken()
	}
	var rule Repository
	matched := false
	f.mapping(n, path, func(name string, at *token.Token, value ast.Node) {
		switch full := repositoriesKey + "." + name; full {
		case matchKey:
			matched = true
			if v, ok := f.value(path+".match", text, at, value); ok {
				rule.Match = v
				if err := notation.CheckGlob(v); err != nil {
					f.problemAt(value.GetToken(), "%s.match: %w", path, err)
				}
			}
		case sparseKey:
			v, _ := f.value(path+".sparse_manifests", boolean, at, value)
			rule.SparseManifests = v == "true"
		case untaggedKey:
			if v, ok := f.value(path+".untagged", text, at, value); ok {
				rule.Untagged = v
				if err := checkKeep(v); err != nil {
					f.problemAt(value.GetToken(), "%s.untagged: %w", path, err)
				}
			}
		default:
			f.unknown(full, at)
		}
	})
	if !matched {
		f.problemAt(at, "%s has no match; say which repositories it is for", path)
	}
	f.config.Repositories = append(f.config.Repositories, rule)
}
