package oci_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
)

var digestGrammar = regexp.MustCompile(`\A(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})\z`)

func TestParseDigest(t *testing.T) {
	hex256, hex512 := strings.Repeat("0a", 32), strings.Repeat("f9", 64)
	for in, valid := range map[string]bool{
		"sha256:" + hex256:                       true,
		"sha512:" + hex512:                       true,
		"":                                       false,
		":":                                      false,
		"sha256":                                 false,
		"sha256:":                                false,
		hex256:                                   false,
		"sha256:" + hex256[1:]:                   false,
		"sha256:" + hex256 + "0":                 false,
		"sha256:" + hex512:                       false,
		"sha512:" + hex256:                       false,
		"sha256:" + strings.ToUpper(hex256):      false,
		"SHA256:" + hex256:                       false,
		"sha256:" + strings.Repeat("0g", 32):     false,
		"sha256:" + strings.Repeat("..", 32):     false,
		"sha256::" + hex256[1:]:                  false,
		" sha256:" + hex256:                      false,
		"sha256:" + hex256 + "\n":                false,
		"sha256:" + hex256[:63] + "\x00":         false,
		"md5:" + strings.Repeat("0", 32):         false,
		"sha384:" + strings.Repeat("0", 96):      false,
		"sha256+b64:" + hex256:                   false,
		"blake3:" + hex256:                       false,
		"sha256:" + strings.Repeat("０", 32)[:64]: false,
	} {
		d, err := oci.ParseDigest(in)
		if valid != (err == nil) {
			t.Errorf("ParseDigest(%q): %v", in, err)
		}
		if err != nil && (!errors.Is(err, oci.ErrDigest) || d != "") {
			t.Errorf("ParseDigest(%q) returns %q and an error that is no ErrDigest: %v", in, d, err)
		}
	}
}

func TestDigestParts(t *testing.T) {
	sum := sha256.Sum256([]byte("berth"))
	want := "sha256:" + hex.EncodeToString(sum[:])
	d := oci.SHA256.FromBytes([]byte("berth"))
	if d.String() != want || d.Algorithm() != oci.SHA256 || d.Hex() != want[len("sha256:"):] {
		t.Errorf("digest %s has algorithm %s and hex %s; want %s", d, d.Algorithm(), d.Hex(), want)
	}
	if !d.Verify([]byte("berth")) || d.Verify([]byte("Berth")) || d.Verify(nil) {
		t.Error("Verify does not tell content apart")
	}
	if got := d.ReferrersTag(); got != "sha256-"+d.Hex() {
		t.Errorf("referrers tag %s", got)
	}
	long := oci.SHA512.FromBytes(nil)
	if got := long.ReferrersTag(); got != "sha512-"+long.Hex()[:64] || oci.CheckTag(got) != nil {
		t.Errorf("referrers tag of a sha512 digest is %s", got)
	}
}

func TestParseAlgorithm(t *testing.T) {
	for _, in := range []string{"", "sha1", "SHA256", "sha256 ", "sha384", strings.Repeat("x", 1<<20)} {
		a, err := oci.ParseAlgorithm(in)
		if !errors.Is(err, oci.ErrDigest) || a != "" {
			t.Errorf("ParseAlgorithm(%.20q) = %q, %v", in, a, err)
		} else if len(err.Error()) > 1000 {
			t.Errorf("the error repeats %d bytes of its input", len(err.Error()))
		}
	}
	for _, want := range []oci.Algorithm{oci.SHA256, oci.SHA512} {
		if a, err := oci.ParseAlgorithm(string(want)); a != want || err != nil {
			t.Errorf("ParseAlgorithm(%q) = %q, %v", want, a, err)
		}
	}
}

// TestHashResumes stops a hash at every kind of offset and takes it up again.
func TestHashResumes(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef!"), 40)
	for _, a := range []oci.Algorithm{oci.SHA256, oci.SHA512} {
		for _, cut := range []int{0, 1, 63, 64, 65, 127, 128, 129, len(content)} {
			first := a.New()
			first.Write(content[:cut])
			state, err := first.MarshalBinary()
			if err != nil {
				t.Fatalf("%s at %d: %v", a, cut, err)
			}
			second := a.New()
			if err := second.UnmarshalBinary(state); err != nil {
				t.Fatalf("%s at %d: %v", a, cut, err)
			}
			second.Write(content[cut:])
			if got, want := a.FromHash(second), a.FromBytes(content); got != want {
				t.Errorf("%s taken up at %d is %s, want %s", a, cut, got, want)
			}
		}
	}
}

func FuzzDigest(f *testing.F) {
	for _, seed := range []string{"", "sha256:", "sha256:" + strings.Repeat("a", 64), "sha512:" + strings.Repeat("0", 128), "md5:x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		d, err := oci.ParseDigest(in)
		if digestGrammar.MatchString(in) != (err == nil) {
			t.Fatalf("ParseDigest(%q): %v", in, err)
		}
		if err == nil && (d.String() != in || string(d.Algorithm())+":"+d.Hex() != in) {
			t.Fatalf("ParseDigest(%q) = %q", in, d)
		}
	})
}
