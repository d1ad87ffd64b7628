package meta

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// untyped is what SQLite takes and PostgreSQL does not: it cannot tell of what
// type a parameter is that is compared with null alone. COALESCE($1, ”) = ” is
// the form that both take.
var untyped = regexp.MustCompile(`\$\d+ IS (NOT )?NULL`)

// TestStatementsAreNeutral reads the texts of all statements.
func TestStatementsAreNeutral(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(text, "$1") {
				seen++
			}
			if found := untyped.FindString(text); found != "" {
				t.Errorf("%s: %s in %s", name, found, text)
			}
			return true
		})
	}
	if seen < 150 {
		t.Errorf("only %d statements were read", seen)
	}
}
