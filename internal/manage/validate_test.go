package manage

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7":            "192.0.2.7/32",
		"192.0.2.7/24":         "192.0.2.0/24",
		"2001:db8::1":          "2001:db8::1/128",
		"2001:db8::1/32":       "2001:db8::/32",
		"::ffff:192.0.2.7":     "192.0.2.7/32",
		"::ffff:192.0.2.0/120": "",
		"fe80::1%eth0":         "",
		"192.0.2.0/33":         "",
		"localhost":            "",
		"":                     "",
	} {
		got, err := addresses([]string{in})
		if (err == nil) != (want != "") || err == nil && got[0].String() != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	if _, err := addresses(make([]string, maxList+1)); err == nil {
		t.Error("too many addresses are taken")
	}
}

func TestWithin(t *testing.T) {
	for _, tt := range []struct {
		ranges, bounds string
		want           bool
	}{
		{"", "", true},
		{"192.0.2.0/24", "", true},
		{"", "192.0.2.0/24", false},
		{"192.0.2.0/24", "192.0.2.0/24", true},
		{"192.0.2.7/32", "198.51.100.0/24 192.0.2.0/24", true},
		{"192.0.2.7/32 203.0.113.1/32", "198.51.100.0/24 192.0.2.0/24", false},
		{"192.0.0.0/16", "192.0.2.0/24", false},
		{"::/0", "0.0.0.0/0", false},
	} {
		if got := within(prefixes(tt.ranges), prefixes(tt.bounds)); got != tt.want {
			t.Errorf("%q within %q: %t", tt.ranges, tt.bounds, got)
		}
	}
}

func prefixes(s string) (list []netip.Prefix) {
	for f := range strings.FieldsSeq(s) {
		list = append(list, netip.MustParsePrefix(f))
	}
	return list
}

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	m := New(Options{Now: func() time.Time { return now }})
	for _, tt := range []struct {
		at   time.Time
		good bool
	}{
		{time.Time{}, true},
		{now, false},
		{now.Add(-time.Second), false},
		{now.Add(time.Millisecond), true},
		{now.AddDate(10, 0, 0), true},
		{now.AddDate(10, 0, 0).Add(time.Second), false},
	} {
		if got, err := m.expiry(tt.at); (err == nil) != tt.good || err == nil && !got.Equal(tt.at) {
			t.Errorf("%v: %v, %v", tt.at, got, err)
		}
	}
}

func TestPrefixes(t *testing.T) {
	for _, tt := range []struct {
		prefix, project string
		good            bool
	}{
		{"app", "app", true}, {"app/web", "app", true}, {"apps", "app", false}, {"other/app", "app", false},
		{"anything/else", "", true}, {"App", "", false}, {"", "", false}, {"app/", "app", false},
	} {
		if err := checkPrefixes([]string{tt.prefix}, tt.project); (err == nil) != tt.good {
			t.Errorf("%q in %q: %v", tt.prefix, tt.project, err)
		}
	}
}

// TestEncode: what is kept of an answer is all of it.
func TestEncode(t *testing.T) {
	k := CreatedKey{Secret: "s", Key: access.Key{
		ID: "i", Role: access.None, Prefixes: []string{"a"}, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		CreatedAt: time.Date(2026, 3, 1, 12, 0, 0, 5e6, time.UTC),
	}}
	b, err := encode(k)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode[CreatedKey](b)
	if err != nil || got.Secret != k.Secret || got.Role != k.Role || got.Addresses[0] != k.Addresses[0] ||
		!got.CreatedAt.Equal(k.CreatedAt) || !got.ExpiresAt.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
}
