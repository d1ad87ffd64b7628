package s3blob

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/blobtest"
	"github.com/berth-registry/berth/internal/blob/s3blob/s3test"
)

// options are those of a store of its own on a server.
func options(t testing.TB, server *s3test.Server) Options {
	cfg := server.Config()
	prefix := strings.ToLower(strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' || r == ',' {
			return '-'
		}
		return r
	}, t.Name()))
	return Options{
		Bucket: s3test.Bucket, Prefix: prefix, Endpoint: server.URL(), PathStyle: true,
		Config: &cfg, Scratch: t.TempDir(), Backoff: 50 * time.Millisecond,
	}
}

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// recorded opens a store whose requests are counted.
func recorded(t testing.TB, o Options) (*Store, *s3test.Recorder) {
	t.Helper()
	rec := &s3test.Recorder{}
	cfg := o.Config.Copy()
	cfg.HTTPClient = rec
	o.Config = &cfg
	return open(t, o), rec
}

func TestStore(t *testing.T) {
	for service, server := range s3test.StartAll(t) {
		runSuite(t, service, func(t *testing.T) Options { return options(t, server) })
	}
}

// TestExternalService holds the service that the environment names to what
// Berth needs of one, and tells what it lacks.
func TestExternalService(t *testing.T) {
	service := s3test.External()
	if service == nil {
		t.Skip("no service to try: BERTH_TEST_S3_ENDPOINT is not set")
	}
	run, n := strings.ToLower(rand.Text()), 0
	own := func(t *testing.T) Options {
		n++
		o := Options{
			Bucket: service.Bucket, Endpoint: service.Endpoint, PathStyle: !service.HostStyle, Prefix: fmt.Sprintf("berth-test-%s/%d", run, n),
			Region: service.Region, Checksum: Checksum(service.Checksum), Scratch: t.TempDir(), Attempts: 4,
		}
		t.Cleanup(func() { empty(t, o) })
		return o
	}
	runSuite(t, "external", own)
	t.Run("conditional writes", func(t *testing.T) {
		s, data := open(t, own(t)), content(1, 6*mib)
		for key, n := range map[string]int{"small-key": 100, "large-key": len(data)} {
			st := appendTo(t, s, key, blob.State{}, data[:n])
			seal(t, s, key, st)
			other := appendTo(t, s, key, blob.State{}, data[1:n])
			if err := s.Seal(t.Context(), key, other); err == nil {
				t.Logf("%s: the service replaces an object, against If-None-Match", key)
			}
		}
		t.Logf("conditional writes are refused: %t", s.rash.Load())
	})
	t.Run("URL", func(t *testing.T) { wantURL(t, open(t, own(t)), http.StatusForbidden) })
	t.Run("another part", func(t *testing.T) { lostPart(t, own(t)) })
}

// empty deletes what a test has left in a bucket that stays.
func empty(t *testing.T, o Options) {
	s, err := New(context.Background(), o)
	if err != nil {
		t.Error(err)
		return
	}
	for object, err := range s.List(context.Background(), "") {
		if err == nil {
			err = s.Abort(context.Background(), object.Key, blob.State{})
		}
		if err != nil {
			t.Errorf("clean up: %v", err)
			return
		}
	}
}

func runSuite(t *testing.T, service string, own func(*testing.T) Options) {
	for name, set := range map[string]func(*Options){
		"default": func(*Options) {},
		"equal":   func(o *Options) { o.EqualParts, o.Checksum = true, MD5 },
		"spooled": func(o *Options) { o.Memory, o.Checksum = minMemory, None },
	} {
		t.Run(service+" "+name, func(t *testing.T) {
			suite := blobtest.Options{
				Deferred: true, Memory: DefaultMemory + 16<<20,
				Reopen: func(t *testing.T, s blob.Store) blob.Store { return open(t, s.(*Store).o) },
			}
			suite.Run(t, func(t *testing.T) blob.Store {
				o := own(t)
				set(&o)
				return open(t, o)
			})
		})
	}
}

// content is n bytes that only the same seed gives again.
func content(seed uint64, n int64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	data := make([]byte, n)
	mathrand.NewChaCha8(key).Read(data)
	return data
}

func appendTo(t testing.TB, s *Store, key string, st blob.State, data []byte) blob.State {
	t.Helper()
	next, err := s.Append(t.Context(), key, st, bytes.NewReader(data))
	if err != nil {
		t.Fatalf("Append of %d bytes at %d: %v", len(data), st.Size, err)
	}
	if want := st.Size + int64(len(data)); next.Size != want {
		t.Fatalf("Append of %d bytes at %d: state of %d", len(data), st.Size, next.Size)
	}
	return next
}

func seal(t testing.TB, s *Store, key string, st blob.State) {
	t.Helper()
	if err := s.Seal(t.Context(), key, st); err != nil {
		t.Fatalf("Seal: %v", err)
	}
}

func wantObject(t testing.TB, s *Store, key string, data []byte) {
	t.Helper()
	rc, err := s.Open(t.Context(), key, 0, int64(len(data)))
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer rc.Close()
	got, err := io.ReadAll(rc)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v; want the %d that were written", len(got), err, len(data))
	}
	for o, err := range s.List(t.Context(), "") {
		if err != nil || o.Key == key && o.Size != int64(len(data)) {
			t.Fatalf("listed as %+v, %v; want %d bytes", o, err, len(data))
		}
	}
}

// wantNothing expects an upload to have left neither objects, tails nor parts.
func wantNothing(t testing.TB, s *Store) {
	t.Helper()
	for o, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s is left, with %d bytes", o.Key, o.Size)
	}
}

var errReset = errors.New("connection reset by client")

// cancelled is a context whose client has gone.
func cancelled(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
