package remote

import (
	"net/url"
	"strings"
	"testing"
)

func TestNextTarget(t *testing.T) {
	for header, want := range map[string]string{
		`</v2/x?n=1>; rel="next"`:                         "/v2/x?n=1",
		`</v2/x>;rel=next`:                                "/v2/x",
		`</v2/x> ; title="a; b" ; REL = "NEXT"`:           "/v2/x",
		`</v2/x>; rel="last next"`:                        "/v2/x",
		`</a>; rel="prev", </b>; rel="next"`:              "/b",
		`</a>; rel="prev"; title="x, <y>; rel=next",</b>`: "",
		`</a>; title="\">; rel=next", , </b>; rel=next`:   "/b",
		`</a,b>; rel=next`:                                "/a,b",
		`</a>; rel=prev; rel=next`:                        "", // the first counts
		`</a>; rel="nextone"`:                             "",
		`</a; rel=next`:                                   "",
		`/a; rel=next`:                                    "",
		``:                                                "",
		`<>; rel=next`:                                    "",
		"</a>; rel=next\n</b>; rel=next":                  "/a",
		"nonsense\n</b>; rel=next":                        "/b",
		`</a>; rel=next; rel*=UTF-8''x, nonsense, </c>; rel=x`: "/a",
	} {
		got, ok := nextTarget(strings.Split(header, "\n"))
		if got != want || ok != (want != "" || strings.HasPrefix(header, "<>")) {
			t.Errorf("%q leads to %q, %v; want %q", header, got, ok, want)
		}
	}
}

// FuzzLink: whatever a Link says, it leads nowhere but to the registry's API.
func FuzzLink(f *testing.F) {
	for _, s := range []string{`</v2/x?n=1>; rel="next"`, `<//e/v2/>;rel=next`, `<http://h/p/v2/../../x>;rel=next`, `</p/v2/%2e%2e/x>;rel=next`, `<\\e>;rel=next`, `<?n=1>;rel=next`} {
		f.Add(s)
	}
	var registries []*Registry
	for _, base := range []string{"https://h", "https://h/p"} {
		r, err := New(base, Options{})
		if err != nil {
			f.Fatal(err)
		}
		registries = append(registries, r)
	}
	f.Fuzz(func(t *testing.T, header string) {
		for _, r := range registries {
			target, ok := nextTarget([]string{header})
			if !ok {
				continue
			}
			u, err := r.at("a", "/tags/list", nil).Parse(target)
			if err != nil {
				continue
			}
			own, ok := r.back(u)
			if !ok {
				continue
			}
			again, err := url.Parse(own.String())
			if err != nil || again.Scheme != "https" || again.Host != "h" || again.User != nil || !r.below(again.Path) {
				t.Errorf("%q leads to %q (%v)", header, own, err)
			}
		}
	})
}
