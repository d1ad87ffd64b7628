package clientaddr_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/clientaddr"
)

var proxies = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("fd00::/8"),
	netip.MustParsePrefix("::ffff:192.168.0.0/112"),
}

// seen is the RemoteAddr that a handler behind proxies sees.
func seen(t testing.TB, trusted []netip.Prefix, peer string, header http.Header) string {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	r.RemoteAddr, r.Header = peer, header
	var got string
	clientaddr.New(trusted).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RemoteAddr })).
		ServeHTTP(httptest.NewRecorder(), r)
	if r.RemoteAddr != peer {
		t.Error("the caller's request was changed")
	}
	return got
}

const peer = "10.0.0.1:4711"

func TestForwardedFor(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"absent", nil, peer},
		{"empty", []string{""}, peer},
		{"only commas", []string{" , ,", ","}, peer},
		{"one", []string{"203.0.113.7"}, "203.0.113.7:0"},
		{"with port", []string{"203.0.113.7:99"}, "203.0.113.7:99"},
		{"IPv6", []string{"2001:db8::1"}, "[2001:db8::1]:0"},
		{"IPv6 in brackets", []string{"[2001:db8::1]"}, "[2001:db8::1]:0"},
		{"IPv6 with port", []string{"[2001:db8::1]:99"}, "[2001:db8::1]:99"},
		{"mapped", []string{"::ffff:203.0.113.7"}, "203.0.113.7:0"},
		{"forged to the left", []string{"1.2.3.4, 203.0.113.7"}, "203.0.113.7:0"},
		{"forged trusted to the left", []string{"10.9.9.9, 203.0.113.7"}, "203.0.113.7:0"},
		{"garbage to the left", []string{"<script>, \", 203.0.113.7"}, "203.0.113.7:0"},
		{"over trusted hops", []string{"1.2.3.4, 203.0.113.7 , 10.1.1.1,\t10.2.2.2"}, "203.0.113.7:0"},
		{"over a mapped trusted hop", []string{"203.0.113.7, ::ffff:10.1.1.1, 192.168.0.9"}, "203.0.113.7:0"},
		{"over IPv6 trusted hops", []string{"203.0.113.7, fd00::1, [fd00::2]:80"}, "203.0.113.7:0"},
		{"lines are one list", []string{"1.2.3.4", "203.0.113.7", "10.1.1.1"}, "203.0.113.7:0"},
		{"all trusted: the leftmost", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3:0"},
		{"empty entries", []string{"203.0.113.7,, ,10.1.1.1,"}, "203.0.113.7:0"},
		{"garbage", []string{"nobody"}, peer},
		{"garbage behind a trusted hop", []string{"203.0.113.7, nobody, 10.1.1.1"}, peer},
		{"zone", []string{"fe80::1%eth0"}, peer},
		{"unclosed bracket", []string{"[2001:db8::1"}, peer},
		{"IPv4 in brackets", []string{"[203.0.113.7]"}, peer},
		{"bad port", []string{"203.0.113.7:65536"}, peer},
		{"no port", []string{"203.0.113.7:"}, peer},
		{"signed port", []string{"203.0.113.7:+1"}, peer},
		{"quoted", []string{`"203.0.113.7"`}, peer},
		{"newline", []string{"203.0.113.7\n"}, peer},
		{"32 hops", []string{"203.0.113.7" + strings.Repeat(",10.1.1.1", 31)}, "203.0.113.7:0"},
		{"33 hops", []string{"203.0.113.7" + strings.Repeat(",10.1.1.1", 32)}, peer},
		{"33 lines", append([]string{"203.0.113.7"}, strings.Split(strings.Repeat(",", 32), ",")[:32]...), peer},
		{"long but not to the right", []string{strings.Repeat("x", 60<<10) + ",203.0.113.7"}, "203.0.113.7:0"},
		{"within 4 KiB", []string{"203.0.113.7," + strings.Repeat(" ", 4060) + "10.1.1.1"}, "203.0.113.7:0"},
		{"beyond 4 KiB", []string{"203.0.113.7," + strings.Repeat(" ", 4090) + "10.1.1.1"}, peer},
		{"long entry", []string{strings.Repeat(" ", 60<<10) + "203.0.113.7"}, peer},
	} {
		if got := seen(t, proxies, peer, http.Header{"X-Forwarded-For": c.lines}); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestForwarded(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"one", []string{"for=203.0.113.7"}, "203.0.113.7:0"},
		{"case and order", []string{"proto=https;For=203.0.113.7;by=10.0.0.1"}, "203.0.113.7:0"},
		{"space", []string{"proto=https ; for=203.0.113.7 ; by=x"}, "203.0.113.7:0"},
		{"last semicolon", []string{"for=203.0.113.7;"}, "203.0.113.7:0"},
		{"quoted port", []string{`for="203.0.113.7:99"`}, "203.0.113.7:99"},
		{"unquoted port", []string{`for=203.0.113.7:99`}, "203.0.113.7:99"},
		{"obfuscated port", []string{`for="203.0.113.7:_p-1"`}, "203.0.113.7:0"},
		{"IPv6", []string{`for="[2001:db8::1]"`}, "[2001:db8::1]:0"},
		{"IPv6 with port", []string{`for="[2001:db8::1]:99"`}, "[2001:db8::1]:99"},
		{"escaped", []string{`for="203.0.113.\7"`}, "203.0.113.7:0"},
		{"quoted comma and semicolon", []string{`host="a,b;for=1.2.3.4";for=203.0.113.7, for=10.1.1.1`}, "203.0.113.7:0"},
		{"over trusted hops", []string{`for=1.2.3.4, for=203.0.113.7`, `for="[fd00::1]:80", for=10.1.1.1`}, "203.0.113.7:0"},
		{"unclosed quote to the left", []string{`for=", for=203.0.113.7`}, "203.0.113.7:0"},
		{"unclosed quote, quoted entry", []string{`for="x, for="[2001:db8::1]:99"`}, "[2001:db8::1]:99"},
		{"unknown", []string{"for=unknown"}, peer},
		{"obfuscated", []string{"for=_hidden"}, peer},
		{"obfuscated behind a trusted hop", []string{"for=203.0.113.7, for=_hidden, for=10.1.1.1"}, peer},
		{"no for", []string{"proto=https"}, peer},
		{"for twice", []string{"for=203.0.113.7;for=1.2.3.4"}, peer},
		{"no value", []string{"for"}, peer},
		{"empty value", []string{"for="}, peer},
		{"unclosed", []string{`for="203.0.113.7`}, peer},
		{"ends in an escape", []string{`for="203.0.113.7\`}, peer},
		{"text behind a quote", []string{`for="203.0.113.7"x`}, peer},
		{"IPv6 without brackets", []string{`for="2001:db8::1"`}, "[2001:db8::1]:0"},
		{"space in a value", []string{`for=203.0.113.7 x`}, peer},
		{"not a pair", []string{`203.0.113.7`}, peer},
	} {
		if got := seen(t, proxies, peer, http.Header{"Forwarded": c.lines}); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestBothHeaders(t *testing.T) {
	for _, c := range []struct{ simple, standard, want string }{
		{"203.0.113.7", "for=203.0.113.7", "203.0.113.7:0"},
		{"203.0.113.7:5", `for="203.0.113.7:6"`, "203.0.113.7:5"},
		{"203.0.113.7", "for=1.2.3.4", "0.0.0.0:0"},
		{"1.2.3.4", "for=203.0.113.7", "0.0.0.0:0"},
		{"203.0.113.7", "for=_hidden", "0.0.0.0:0"},
		{"nobody", "for=203.0.113.7", "0.0.0.0:0"},
		{"nobody", "for=_hidden", peer},
	} {
		h := http.Header{"X-Forwarded-For": {c.simple}, "Forwarded": {c.standard}}
		if got := seen(t, proxies, peer, h); got != c.want {
			t.Errorf("%s and %s: %s, want %s", c.simple, c.standard, got, c.want)
		}
	}
}

func TestPeers(t *testing.T) {
	h := http.Header{"X-Forwarded-For": {"203.0.113.7"}, "Forwarded": {"for=203.0.113.7"}}
	for from, want := range map[string]string{
		"10.0.0.1:1":                "203.0.113.7:0",
		"[::ffff:10.0.0.1]:1":       "203.0.113.7:0",
		"[fd00::1%eth0]:1":          "203.0.113.7:0",
		"192.168.0.1:1":             "203.0.113.7:0",
		"192.169.0.1:1":             "192.169.0.1:1",
		"198.51.100.1:1":            "198.51.100.1:1",
		"[2001:db8::5]:1":           "[2001:db8::5]:1",
		"[::ffff:198.51.100.1]:123": "[::ffff:198.51.100.1]:123",
		"@":                         "@",
		"":                          "",
	} {
		if got := seen(t, proxies, from, h); got != want {
			t.Errorf("from %s: %s, want %s", from, got, want)
		}
		if got := seen(t, nil, from, h); got != from {
			t.Errorf("from %s, nobody trusted: %s", from, got)
		}
	}
}

func TestNetwork(t *testing.T) {
	for a, want := range map[string]string{
		"203.0.113.7":          "203.0.113.7",
		"::ffff:203.0.113.7":   "203.0.113.7",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"2001:db8:1:2::":       "2001:db8:1:2::/64",
		"2001:db8:1:3::":       "2001:db8:1:3::/64",
		"fe80::1%eth0":         "fe80::/64",
	} {
		if got := clientaddr.Network(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: %s, want %s", a, got, want)
		}
	}
	if got := clientaddr.Network(netip.Addr{}); got != "unknown" {
		t.Errorf("no address: %s", got)
	}
}

// FuzzHandler: whatever a client writes to the left of what its proxy appends,
// it stays who it is; and whatever stands alone, the outcome is an address.
func FuzzHandler(f *testing.F) {
	for _, s := range []string{"", "1.2.3.4", "for=1.2.3.4", `for="[::1]:1", for="`, `\"`, "10.1.1.1,,", `a="b\"c",`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for header, appended := range map[string]string{
			"X-Forwarded-For": "203.0.113.7",
			"Forwarded":       `for="203.0.113.7:0";host="a,b"`,
		} {
			for _, lines := range [][]string{{s + ", " + appended}, {s, appended}} {
				if got := seen(t, proxies, peer, http.Header{header: lines}); got != "203.0.113.7:0" {
					t.Errorf("%s %q: %s", header, lines, got)
				}
			}
			got := seen(t, proxies, peer, http.Header{header: {s}})
			if a, err := netip.ParseAddrPort(got); err != nil || a.String() != got {
				t.Errorf("%s %q: %q is no address", header, s, got)
			}
		}
	})
}
