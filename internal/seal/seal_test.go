package seal_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/seal"
)

func keyOf(c byte) []byte { return bytes.Repeat([]byte{c}, 32) }

func sealer(t *testing.T, keys ...[]byte) *seal.Sealer {
	t.Helper()
	s, err := seal.New(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealed(t *testing.T) {
	s := sealer(t, keyOf(1))
	for _, plain := range []string{"", "secret", strings.Repeat("long", 1<<16)} {
		sealed := s.Seal("proxy/docker.io", []byte(plain))
		if plain != "" && bytes.Contains(sealed, []byte(plain)) {
			t.Error("the secret can be read")
		}
		got, err := sealer(t, keyOf(1)).Open("proxy/docker.io", sealed)
		if err != nil || string(got) != plain {
			t.Errorf("got %.20q, %v", got, err)
		}
	}
	if bytes.Equal(s.Seal("a", []byte("x")), s.Seal("a", []byte("x"))) {
		t.Error("the same secret looks the same twice")
	}
}

// TestTampering: no byte of a sealed secret can be changed, none taken away or
// added, and it is of no use under another name.
func TestTampering(t *testing.T) {
	s := sealer(t, keyOf(1))
	sealed := s.Seal("a", []byte("secret"))
	for i := range sealed {
		for bit := range 8 {
			changed := bytes.Clone(sealed)
			changed[i] ^= 1 << bit
			if got, err := s.Open("a", changed); err == nil {
				t.Errorf("bit %d of byte %d: opened as %q", bit, i, got)
			}
		}
		if got, err := s.Open("a", sealed[:i]); err == nil {
			t.Errorf("the first %d bytes: opened as %q", i, got)
		}
	}
	if _, err := s.Open("a", append(bytes.Clone(sealed), 0)); !errors.Is(err, seal.ErrTampered) {
		t.Errorf("a byte more: %v", err)
	}
	for _, name := range []string{"b", "", "aa", "A"} {
		if _, err := s.Open(name, sealed); !errors.Is(err, seal.ErrTampered) {
			t.Errorf("as that of %q: %v", name, err)
		}
	}
	if _, err := s.Open("a", nil); !errors.Is(err, seal.ErrMalformed) {
		t.Errorf("nothing: %v", err)
	}
}

// TestStored: what was sealed by an earlier Berth opens.
func TestStored(t *testing.T) {
	stored, err := hex.DecodeString("0115e9fbc05a82b4392aee990fbe9209ae1b49fd337f2970ec34638184fc972766c924efb1d77e")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := sealer(t, keyOf(1)).Open("proxy/docker.io", stored); err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestKeysChange(t *testing.T) {
	old, both, fresh := sealer(t, keyOf(1)), sealer(t, keyOf(2), keyOf(1)), sealer(t, keyOf(2))
	before, after := old.Seal("a", []byte("x")), both.Seal("a", []byte("x"))
	if got, err := both.Open("a", before); err != nil || string(got) != "x" {
		t.Errorf("with both keys: %q, %v", got, err)
	}
	if got, err := fresh.Open("a", after); err != nil || string(got) != "x" {
		t.Errorf("the first key seals: %q, %v", got, err)
	}
	if _, err := fresh.Open("a", before); !errors.Is(err, seal.ErrKey) {
		t.Errorf("without its key: %v", err)
	}
	if !both.Stale(before) || both.Stale(after) {
		t.Error("it is not told which secrets are of an older key")
	}
}

func TestKeys(t *testing.T) {
	raw := []byte("\x00\x01\x02 0123456789abcdefghijklmnopqrstuvwxyz\n")
	k := keyOf(0xab)
	lines := hex.EncodeToString(k) + "\n\n" + base64.StdEncoding.EncodeToString(keyOf(0xff)) + "\r\n" +
		base64.RawURLEncoding.EncodeToString(keyOf(0xfe)) + "\nthis is a long sentence; it stands for itself\n"
	for what, c := range map[string]struct {
		content string
		want    [][]byte
	}{
		"bytes":       {string(raw), [][]byte{raw}},
		"hexadecimal": {strings.ToUpper(hex.EncodeToString(k)) + "\n", [][]byte{k}},
		"several":     {lines, [][]byte{k, keyOf(0xff), keyOf(0xfe), []byte("this is a long sentence; it stands for itself")}},
		"empty":       {" \n\n", nil},
		"short":       {"too short", nil},
		"short bytes": {"\x00\x01", nil},
		"one short":   {hex.EncodeToString(k) + "\nshort", nil},
		"half a key":  {hex.EncodeToString(k[:15]), nil},
	} {
		got, err := seal.Keys([]byte(c.content))
		if (err == nil) != (c.want != nil) || len(got) != len(c.want) {
			t.Errorf("%s: got %q, %v", what, got, err)
			continue
		}
		for i := range got {
			if !bytes.Equal(got[i], c.want[i]) {
				t.Errorf("%s: key %d is %q, want %q", what, i, got[i], c.want[i])
			}
		}
		if err != nil && strings.Contains(err.Error(), "too short") {
			t.Errorf("%s: the error has the key: %v", what, err)
		}
	}
	if _, err := seal.New(); err == nil {
		t.Error("no key is enough")
	}
	if _, err := seal.New(keyOf(1), []byte("short")); err == nil {
		t.Error("a short key is enough")
	}
}
