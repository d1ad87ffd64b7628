package oidc

import (
	"regexp"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/access"
)

func TestValidateRule(t *testing.T) {
	many := map[string]string{}
	for n := range maxClaims + 1 {
		many[strings.Repeat("a", n+1)] = "x"
	}
	one := map[string]string{"repository": "acme/app"}
	for _, tt := range []struct {
		issuer, audience string
		claims           map[string]string
		want             string // part of the error, "" for none
	}{
		{"https://token.actions.githubusercontent.com", "berth", one, ""},
		{"https://gitlab.example.com:8443/path/", "https://berth.example.com", map[string]string{"a": "*", "b": "x*"}, ""},
		{"http://127.0.0.1:8080", "berth", one, ""},
		{"http://localhost/x", "berth", one, ""},
		{"http://[::1]:1", "berth", one, ""},
		{"http://token.example.com", "berth", one, "issuer must begin with https://"},
		{"http://10.0.0.1", "berth", one, "issuer must begin with https://"},
		{"http://localhost.example.com", "berth", one, "issuer must begin with https://"},
		{"ftp://127.0.0.1", "berth", one, "issuer must begin with https://"},
		{"", "berth", one, "issuer must be a URL"},
		{"token.example.com", "berth", one, "issuer must be a URL"},
		{"https://", "berth", one, "issuer must be a URL"},
		{"https://:443", "berth", one, "issuer must be a URL"},
		{"https://a\nb", "berth", one, "issuer must be a URL"},
		{"https://user:secret@example.com", "berth", one, "without user"},
		{"https://example.com?a=b", "berth", one, "without user, query"},
		{"https://example.com?", "berth", one, "without user, query"},
		{"https://example.com#", "berth", one, "fragment"},
		{"https://example.com/" + strings.Repeat("x", maxURL), "berth", one, "at most 1024 bytes"},
		{"https://example.com", "", one, "audience must not be empty"},
		{"https://example.com", "a\rb", one, "control"},
		{"https://example.com", strings.Repeat("x", 257), one, "at most 256"},
		{"https://example.com", "berth", nil, "at least one"},
		{"https://example.com", "berth", map[string]string{}, "at least one"},
		{"https://example.com", "berth", many, "at most 20"},
		{"https://example.com", "berth", map[string]string{"a": "*", "b": "***"}, "more than *"},
		{"https://example.com", "berth", map[string]string{"a": ""}, "must not be empty"},
		{"https://example.com", "berth", map[string]string{"": "a"}, "must not be empty"},
		{"https://example.com", "berth", map[string]string{"a": strings.Repeat("x", 257)}, "at most 256"},
		{"https://example.com", "berth", map[string]string{"a": "\xff"}, "UTF-8"},
	} {
		err := ValidateRule(access.TrustRule{Issuer: tt.issuer, Audience: tt.audience, Claims: tt.claims})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%.64q for %.16q with %d claims: %v, want %q", tt.issuer, tt.audience, len(tt.claims), err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells a password: %v", err)
		}
	}
}

func TestNoClaimsAdmitNobody(t *testing.T) {
	if admits(&access.TrustRule{}, map[string]any{"a": "b"}) {
		t.Error("a rule without claims admits a token")
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"acme/app", "acme/app", true},
		{"acme/app", "acme/app2", false},
		{"acme/app", "xacme/app", false},
		{"acme/app", "Acme/app", false},
		{"acme/*", "acme/app", true},
		{"acme/*", "acme/", true},
		{"acme/*", "acme/a/b", true},
		{"acme/*", "acme", false},
		{"acme/*", "acme2/app", false},
		{"*/app", "acme/app", true},
		{"*/app", "acme/app/app2", false},
		{"refs/*/main", "refs/heads/main", true},
		{"refs/*/main", "refs/heads/main/x", false},
		{"a*b*c", "abcbc", true},
		{"a*b*c", "acb", false},
		{"a**c", "ac", true},
		{"*", "", true},
		{"*", "anything\nat all", true},
		{"a", "", false},
		{"a.c", "abc", false},
		{"a?c", "abc", false},
		{"[a-z]", "b", false},
		{"ä*", "äö", true},
	} {
		if got := matches(tt.pattern, tt.text); got != tt.want {
			t.Errorf("%q matches %q: %t", tt.pattern, tt.text, got)
		}
	}
}

func TestFind(t *testing.T) {
	var claims map[string]any
	if err := unmarshal([]byte(`{
		"a": {"b": {"c": "nested"}, "d.e": "dotted below"}, "a.b": {"x": "longest"}, "f.g": "dotted", "f": {"g": "hidden"},
		"https://example.com/role": "url", "n": 1.50, "big": 12345678901234567890, "t": true, "null": null,
		"list": ["x", 1, false, null, ["deep"], {"y": "z"}], "": "empty"
	}`), &claims); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"a.b.x": "longest", "a.d.e": "dotted below", "f.g": "dotted", "https://example.com/role": "url",
		"n": "1.50", "big": "12345678901234567890", "t": "true", "list": "x 1 false",
		"a.b.c": "", "a": "", "null": "", "n.x": "", "list.y": "", "none": "", "a.": "", ".": "", "a.b.x.y": "",
	} {
		claim, _ := find(claims, path)
		if got := strings.Join(texts(claim), " "); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
}

func FuzzMatches(f *testing.F) {
	f.Add("a*b", "axxb")
	f.Add("**", "")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > maxPattern || len(text) > 1<<10 {
			t.Skip() // longer than what is ever compared
		}
		// Bytes are told apart as such, so the reference reads them as Latin-1.
		latin := func(s string) string {
			var b strings.Builder
			for i := range len(s) {
				b.WriteRune(rune(s[i]))
			}
			return b.String()
		}
		expression := strings.ReplaceAll(regexp.QuoteMeta(latin(pattern)), `\*`, `.*`)
		want := regexp.MustCompile(`(?s)^` + expression + `$`).MatchString(latin(text))
		if got := matches(pattern, text); got != want {
			t.Errorf("%q matches %q: %t", pattern, text, got)
		}
	})
}

func FuzzIssuerOf(f *testing.F) {
	f.Add("e30.eyJpc3MiOiJodHRwczovL2EifQ.x")
	f.Fuzz(func(t *testing.T, raw string) {
		iss, err := issuerOf(raw)
		if (err == nil) == (iss == "") || len(iss) > maxURL {
			t.Errorf("%q is from %q, %v", raw, iss, err)
		}
	})
}
