package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/berth-registry/berth/internal/notation"
)

const (
	maxFile   = 1 << 20 // bytes
	maxTokens = 20_000  // the parser's time grows with their square
	maxDepth  = 16      // lists and mappings in each other
)

// file is a configuration file being read into a loader.
type file struct {
	*loader
	name string
}

func (l *loader) readFile(name string) {
	data, err := readBounded(name)
	if err != nil {
		l.problem("configuration file: %w", err)
		return
	}
	(&file{loader: l, name: name}).read(data)
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes; is it the right file?", name, maxFile)
	}
	return data, nil
}

// problemAt is a problem at a place in the file.
func (f *file) problemAt(t *token.Token, format string, args ...any) {
	f.problem("%s: %w", f.place(t), fmt.Errorf(format, args...))
}

func (f *file) place(t *token.Token) string {
	if t == nil || t.Position == nil {
		return f.name
	}
	return fmt.Sprintf("%s:%d:%d", f.name, t.Position.Line, t.Position.Column)
}

func (f *file) read(data []byte) {
	tokens := lexer.Tokenize(string(data))
	if t, what := forbidden(tokens); t != nil {
		f.problemAt(t, "%s", what)
		return
	}
	if len(tokens) > maxTokens {
		f.problemAt(tokens[maxTokens], "the file is too long; is it the right one?")
		return
	}
	// Keys given twice are found by mapping, with the place of both.
	doc, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		f.syntax(err)
		return
	}
	bodies := 0
	for _, d := range doc.Docs {
		if d.Body == nil {
			continue
		}
		if bodies++; bodies > 1 {
			f.problemAt(d.Start, "a second document begins here; keep one")
			return
		}
		f.group("", d.Body)
	}
}

func (f *file) syntax(err error) {
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) {
		f.problemAt(syntax.Token, "%s", syntax.Message)
		return
	}
	f.problem("%s: %w", f.name, err)
}

// forbidden finds the first token that a configuration has no use for: what
// makes a small file large in memory, or nests without end.
func forbidden(tokens token.Tokens) (*token.Token, string) {
	flow, entries, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, entries = t.Position.Line, 0
		}
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType, token.TagType, token.DirectiveType, token.MappingKeyType:
			return t, fmt.Sprintf("anchors, aliases, tags, directives and ? keys are not supported; write the value out, or put %q in quotes", notation.Shown(t.Value))
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType:
			entries++
		}
		if flow > maxDepth || entries > maxDepth {
			return t, "too deep: no setting lies here"
		}
	}
	return nil, ""
}

// group reads the keys under path.
func (f *file) group(path string, n ast.Node) {
	f.mapping(n, path, func(name string, at *token.Token, value ast.Node) {
		full := strings.TrimPrefix(path+"."+name, ".")
		k := findKey(full)
		switch {
		case k != nil:
			f.scalar(k, at, value)
		case full == repositoriesKey:
			f.repositories(value)
		case full == proxiesKey:
			f.proxies(value)
		case full == virtualKey:
			f.virtuals(value)
		case isGroup(full):
			f.group(full, value)
		default:
			f.unknown(full, at)
		}
	})
}

// mapping calls entry for each key of n, which is the value of the key path. A
// mapping without any entry may also be left empty.
func (f *file) mapping(n ast.Node, path string, entry func(name string, at *token.Token, value ast.Node)) {
	if n == nil || n.Type() == ast.NullType {
		return
	}
	m, ok := n.(ast.MapNode)
	if !ok {
		where := "the file"
		if path != "" {
			where = path
		}
		f.problemAt(n.GetToken(), "%s must hold keys and values, not %s", where, describe(n))
		return
	}
	first := map[string]*token.Token{}
	for it := m.MapRange(); it.Next() && len(f.problems) <= maxProblems; {
		at := it.Key().GetToken()
		name := at.Value
		if before := first[name]; before != nil {
			f.problemAt(at, "%q is already set in line %d; keep one", notation.Shown(name), before.Position.Line)
			continue
		}
		first[name] = at
		entry(name, at, it.Value())
	}
}

// moved says what became of keys that earlier versions had.
var moved = map[string]string{
	"auth.htpasswd": "Berth keeps users itself now: remove the line, and make them with `berth user create NAME`",
}

func (f *file) unknown(path string, at *token.Token) {
	if hint := moved[path]; hint != "" {
		f.problemAt(at, "the key %s is gone; %s", path, hint)
		return
	}
	f.problemAt(at, "unknown key %q; did you mean %q?", notation.Shown(path), nearest(path, keyPaths(), "."))
}

// scalar reads the value of k; at is where its name stands.
func (f *file) scalar(k *key, at *token.Token, n ast.Node) {
	value, ok := f.value(k.path, k.kind, at, n)
	if ok {
		f.set(k, value, "file", f.place(n.GetToken())+": "+k.path)
	}
}

// value is the scalar n as text, if it is of the kind wanted.
func (f *file) value(path string, want kind, at *token.Token, n ast.Node) (string, bool) {
	switch v := n.(type) {
	case nil, *ast.NullNode:
		f.problemAt(at, "%s has no value; give it one or remove the line", path)
		return "", false
	case *ast.StringNode:
		if want != boolean {
			return v.Value, true
		}
	case *ast.BoolNode:
		if want == boolean {
			return v.Token.Value, true
		}
	case *ast.FloatNode:
		if want == share {
			return v.Token.Value, true
		}
	case *ast.IntegerNode:
		if want == duration || want == size || want == number || want == share { // the message about a missing unit is its parser's
			return v.Token.Value, true
		}
	}
	hint := ""
	if want == text {
		hint = "; put it in quotes"
	}
	f.problemAt(n.GetToken(), "%s must be %v, not %s%s", path, want, describe(n), hint)
	return "", false
}

// describe names what a value is, for people who do not know YAML's terms.
func describe(n ast.Node) string {
	switch n.(type) {
	case *ast.SequenceNode:
		return "a list"
	case ast.MapNode:
		return "keys and values"
	case *ast.BoolNode:
		return "true or false"
	case *ast.StringNode:
		return "text"
	case *ast.LiteralNode:
		return "text of several lines"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	default:
		return "something else"
	}
}
