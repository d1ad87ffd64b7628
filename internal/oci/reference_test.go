package oci_test

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
)

// The grammars of the distribution-spec, "Pulling manifests".
var (
	nameGrammar = regexp.MustCompile(`\A[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\z`)
	tagGrammar  = regexp.MustCompile(`\A[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\z`)
)

func wantName(t *testing.T, name string) {
	t.Helper()
	valid := len(name) <= oci.MaxRepository && nameGrammar.MatchString(name)
	err := oci.CheckRepository(name)
	if valid != (err == nil) {
		t.Errorf("CheckRepository(%q): %v, want valid: %v", name, err, valid)
	}
	if err != nil && !errors.Is(err, oci.ErrRepository) {
		t.Errorf("CheckRepository(%q): %v is no ErrRepository", name, err)
	}
}

func TestCheckRepository(t *testing.T) {
	for _, name := range []string{
		"a", "0", "a/b", "a/b/c/d/e/f", "a.b", "a_b", "a__b", "a-b", "a----b", "a.b_c__d-e/f",
		"", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a/./b", ".a", "a.", "_a", "a_", "-a", "a-", "a..b", "a___b",
		"a._b", "a_.b", "a-_b", "a_-b", "a.-b", "a-.b", "a/-b", "a-/b", "A", "aB", "a b", "a\n", "a\x00b", "é", "a/é", "a:b", "a@b", "a%2fb", "a\\b",
		strings.Repeat("a", 255), strings.Repeat("a", 256), strings.Repeat("a/", 127) + "a", strings.Repeat("a/", 128) + "a",
	} {
		wantName(t, name)
	}
}

// TestCheckRepositoryExhaustively holds every short name over one byte of each
// class against the spec's own expression.
func TestCheckRepositoryExhaustively(t *testing.T) {
	const alphabet = "a0._-/A\xff"
	var extend func(prefix string, more int)
	extend = func(prefix string, more int) {
		wantName(t, prefix)
		if more == 0 {
			return
		}
		for i := range len(alphabet) {
			extend(prefix+alphabet[i:i+1], more-1)
		}
	}
	extend("", 5)
}

func TestCheckRepositoryAtRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	parts := []string{"a", "b7", "0", "abc", ".", "_", "__", "-", "---", "/", "/", "Z", "~"}
	for range 20_000 {
		var name strings.Builder
		for range random.IntN(14) {
			name.WriteString(parts[random.IntN(len(parts))])
		}
		wantName(t, name.String())
	}
}

func TestCheckTag(t *testing.T) {
	for _, tag := range []string{
		"a", "A", "0", "_", "latest", "v1.2.3-rc.1_x", "a..b", "a--", "__", strings.Repeat("x", 128),
		"", ".", "-", ".a", "-a", "a/b", "a:b", "a b", "a\n", "a\x00", "é", "a+b", "a@b", strings.Repeat("x", 129), strings.Repeat("x", 1<<20),
	} {
		err := oci.CheckTag(tag)
		if tagGrammar.MatchString(tag) != (err == nil) {
			t.Errorf("CheckTag(%.140q): %v", tag, err)
		}
		if err != nil && (!errors.Is(err, oci.ErrTag) || len(err.Error()) > 1000) {
			t.Errorf("CheckTag(%.140q): %v", tag, err)
		}
	}
}

func TestParseRef(t *testing.T) {
	digest := oci.SHA256.FromBytes(nil)
	for _, c := range []struct {
		in   string
		want oci.Ref
		err  error
	}{
		{"latest", oci.TagRef("latest"), nil},
		{"sha256", oci.TagRef("sha256"), nil},
		{digest.ReferrersTag(), oci.TagRef(digest.ReferrersTag()), nil},
		{digest.String(), oci.DigestRef(digest), nil},
		{"", oci.Ref{}, oci.ErrTag},
		{"a/b", oci.Ref{}, oci.ErrTag},
		{"latest:1", oci.Ref{}, oci.ErrDigest},
		{":", oci.Ref{}, oci.ErrDigest},
		{"sha256:xyz", oci.Ref{}, oci.ErrDigest},
		{"latest@" + digest.String(), oci.Ref{}, oci.ErrDigest},
	} {
		got, err := oci.ParseRef(c.in)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("ParseRef(%q) = %+v, %v; want %+v, %v", c.in, got, err, c.want, c.err)
		}
		if c.err == nil && (got.String() != c.in || got.IsDigest() != (got.Digest != "") || got.IsZero()) {
			t.Errorf("ParseRef(%q) = %+v reads back as %q", c.in, got, got)
		}
	}
	if !(oci.Ref{}).IsZero() {
		t.Error("the zero Ref names something")
	}
}

func FuzzRepository(f *testing.F) {
	for _, seed := range []string{"a", "a/b", "a__b", "a---b/c.d", "a___b", "a//b", "é", strings.Repeat("a", 256)} {
		f.Add(seed)
	}
	f.Fuzz(wantName)
}

func FuzzRef(f *testing.F) {
	for _, seed := range []string{"latest", "_", ".x", "sha256:00", oci.SHA512.FromBytes(nil).String()} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		ref, err := oci.ParseRef(in)
		if valid := tagGrammar.MatchString(in) || digestGrammar.MatchString(in); valid != (err == nil) {
			t.Fatalf("ParseRef(%q): %v", in, err)
		}
		if err != nil && !ref.IsZero() || err == nil && ref.String() != in {
			t.Fatalf("ParseRef(%q) = %+v, %v", in, ref, err)
		}
	})
}
