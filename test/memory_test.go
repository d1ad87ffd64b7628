package test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestMemory pushes 20 big blobs while 20 clients pull one, then has the 20
// pulled at once; each has BERTH_BLOB_MIB.
func TestMemory(t *testing.T) {
	const clients, limit = 20, 128 << 20
	size := int64(number(t, "BERTH_BLOB_MIB", 128)) << 20
	s := mustStart(t, filepath.Join(t.TempDir(), "data"))
	pull := func(digest string) error { return s.checkBlob("big/app", digest, size) }

	old, err := pushBig(s.api, stuff{clients, size})
	if err != nil {
		t.Fatal(err)
	}
	digests := make([]string, clients)
	var work []func() error
	for i := range digests {
		work = append(work,
			func() (err error) { digests[i], err = pushBig(s.api, stuff{uint64(i), size}); return err },
			func() error { return pull(old) })
	}
	if err := together(work, func(f func() error) error { return f() }); err != nil {
		t.Fatal(err)
	}
	if err := together(digests, pull); err != nil {
		t.Fatal(err)
	}
	peak := s.peakMemory(t)
	t.Logf("peak resident memory: %d MiB", peak>>20)
	if peak >= limit {
		t.Fatalf("peak resident memory is %d MiB, want less than %d", peak>>20, limit>>20)
	}
}

// pushBig streams a blob as docker does: its digest is known once it is sent.
func pushBig(a *api, content stuff) (digest string, err error) {
	path, err := a.startUpload("big/app")
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	h, err := a.send("PATCH", path, io.TeeReader(content.from(0), hash), []string{"Content-Type", "application/octet-stream"}, 202)
	if err != nil {
		return "", err
	}
	if path, err = sessionPath(h); err != nil {
		return "", err
	}
	digest = fmt.Sprintf("sha256:%x", hash.Sum(nil))
	return digest, a.finishUpload(path, digest, nil)
}

// number is an environment variable's value or a default.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a positive number", name, text)
	}
	return n
}
