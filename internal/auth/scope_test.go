package auth_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/auth"
)

func TestParseScopes(t *testing.T) {
	for _, tt := range []struct {
		values []string
		want   string
	}{
		{nil, ""},
		{[]string{"", "  "}, ""},
		{[]string{"repository:acme/app:pull"}, "repository:acme/app:pull"},
		{[]string{"repository:acme/app:pull,push", "repository:acme/lib:pull"}, "repository:acme/app:pull,push repository:acme/lib:pull"},
		{[]string{"repository:a/b:pull repository:c/d:push"}, "repository:a/b:pull repository:c/d:push"},
		{[]string{"repository:a/b:push,pull", "repository:c:pull", "repository:a/b:delete,pull"}, "repository:a/b:push,pull,delete repository:c:pull"},
		{[]string{"repository(plugin):a/b:pull"}, "repository:a/b:pull"},
		{[]string{"repository:localhost:5000/a/b:pull"}, "repository:localhost:5000/a/b:pull"},
		{[]string{"registry:catalog:*"}, "registry:catalog:*"},
		{[]string{"repository:a:*,metadata_read"}, "repository:a:*"},
		{[]string{"repository:a:"}, "repository:a:"},
		{[]string{"aws:x:pull"}, "aws:x:pull"},
	} {
		got, err := auth.ParseScopes(tt.values)
		if text := joined(got); err != nil || text != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.values, text, err, tt.want)
		}
	}
}

func joined(scopes []auth.Scope) string {
	var texts []string
	for _, s := range scopes {
		texts = append(texts, s.String())
	}
	return strings.Join(texts, " ")
}

func TestParseScopesRefuses(t *testing.T) {
	many := make([]string, 10_000)
	for i := range many {
		many[i] = fmt.Sprintf("repository:a%d:pull", i)
	}
	for what, values := range map[string][]string{
		"no colon": {"pull"}, "one colon": {"repository:pull"}, "no type": {":a:pull"}, "only a class": {"(x):a:pull"}, "no name": {"repository::pull"},
		"line feed": {"repository:a\nb:pull"}, "return": {"repository:a\rb:pull"}, "quote": {`repository:a":pull`},
		"backslash": {`repository:a\:pull`}, "NUL": {"repository:a\x00:pull"}, "not ASCII": {"repository:ä:pull"}, "tab": {"repository:a:pull\trepository:b:pull"},
		"long": {"repository:" + strings.Repeat("a", 512) + ":pull"}, "many": many, "many in one": {strings.Join(many[:101], " ")},
		"huge": {strings.Repeat(" ", 1<<20)}, "huge together": {strings.Repeat(" ", 9<<10), strings.Repeat(" ", 9<<10)},
	} {
		if got, err := auth.ParseScopes(values); !errors.Is(err, auth.ErrScope) || got != nil {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	if got, err := auth.ParseScopes(many[:100]); err != nil || len(got) != 100 {
		t.Errorf("100 scopes: %d, %v", len(got), err)
	}
}

func FuzzParseScopes(f *testing.F) {
	for _, s := range []string{"", "repository:a/b:pull,push", "a:b:c d:e:f", "repository(x):h:1/a:*", `":":"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		scopes, err := auth.ParseScopes([]string{s})
		if err != nil {
			if !errors.Is(err, auth.ErrScope) || scopes != nil || len(err.Error()) > 1000 {
				t.Errorf("%q: %v, %v", s, scopes, err)
			}
			return
		}
		text := joined(scopes)
		if len(scopes) > 100 || !auth.Printable(text) {
			t.Errorf("%q: %d scopes, %q", s, len(scopes), text)
		}
		if again, err := auth.ParseScopes([]string{text}); err != nil || !reflect.DeepEqual(again, scopes) {
			t.Errorf("%q: %q is read as %q, %v", s, text, again, err)
		}
	})
}
