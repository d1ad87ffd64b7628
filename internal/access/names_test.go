package access_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/oci"
)

func TestNames(t *testing.T) {
	valid := map[string]func(string) error{
		"user":    access.ValidUserName,
		"project": access.ValidProjectName,
		"group":   func(s string) error { return access.ValidName("group", s) },
		"key":     func(s string) error { return access.ValidLabel("key", s) },
	}
	long := strings.Repeat("a", access.MaxName)
	for _, c := range []struct{ name, good string }{
		{"a", "user project group key"},
		{"7", "user project group key"},
		{long, "user project group key"},
		{long + "a", ""},
		{"", ""},
		{"a.b_c-d", "user project group key"},
		{"a--b", "project key"},
		{"a---b", "project key"},
		{"a__b", "project key"},
		{"a___b", "key"},
		{"a..b", "key"},
		{"a._b", "key"},
		{"-a", "key"},
		{"a-", "key"},
		{"A", "key"},
		{".", "key"},
		{"a b", ""},
		{"a/b", ""},
		{"a\nb", ""},
		{"a\"", ""},
		{"ä", ""},
		{"a\xff", ""},
		{"oidc", "project group key"},
		{"anonymous", "project group key"},
		{"local", "project group key"},
	} {
		for kind, check := range valid {
			err := check(c.name)
			if good := strings.Contains(c.good, kind); good != (err == nil) {
				t.Errorf("%s %q: %v, want good: %v", kind, c.name, err, good)
			}
			if err == nil {
				continue
			}
			if !errors.Is(err, access.ErrInvalid) || !strings.HasPrefix(err.Error(), "invalid "+kind+" name") || len(err.Error()) > 200 || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s %q is refused with %q", kind, c.name, err)
			}
		}
	}
}

// FuzzProjectName holds what a project may be called against what a repository
// may be.
func FuzzProjectName(f *testing.F) {
	for _, s := range []string{"", "a", "a/b", "a__b", "a___b", "a--b", "-a", "a-", "a._b", "a_", "a__", "é", strings.Repeat("a", 65)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		want := oci.CheckRepository(name) == nil && !strings.Contains(name, "/") && len(name) <= access.MaxName
		if err := access.ValidProjectName(name); (err == nil) != want {
			t.Errorf("project %q: %v, want good: %v", name, err, want)
		}
	})
}
