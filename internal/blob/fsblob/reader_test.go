package fsblob

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/berth-registry/berth/internal/blob"
)

// put stores n random bytes and returns them.
func put(t testing.TB, s *Store, key string, n int) []byte {
	t.Helper()
	data := make([]byte, n)
	rand.Read(data)
	st, err := s.Append(t.Context(), key, blob.State{}, bytes.NewReader(data))
	if err == nil {
		err = s.Seal(t.Context(), key, st)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// fileSink is a destination that records what it is told to read from.
type fileSink struct {
	bytes.Buffer
	source io.Reader
}

func (s *fileSink) ReadFrom(r io.Reader) (int64, error) {
	s.source = r
	return s.Buffer.ReadFrom(r)
}

// isFile tells whether r is what the net package gives to sendfile.
func isFile(r io.Reader) bool {
	part, ok := r.(*io.LimitedReader)
	if !ok {
		return false
	}
	_, ok = part.R.(*os.File)
	return ok
}

func TestWriteToHandsOverTheFile(t *testing.T) {
	s := newStore(t, t.TempDir())
	data := put(t, s, "some-key", 100_000)
	rc, err := s.Open(t.Context(), "some-key", 1000, 50_000)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	var sink fileSink
	if n, err := io.Copy(&sink, rc); err != nil || n != 50_000 {
		t.Fatalf("copied %d bytes, %v", n, err)
	}
	if !isFile(sink.source) {
		t.Errorf("the destination got a %T, want a limited *os.File", sink.source)
	}
	if !bytes.Equal(sink.Bytes(), data[1000:51_000]) {
		t.Error("other bytes were copied")
	}
}

// TestServerReachesSendfile serves an object and looks on the connection below
// net/http what arrives there. A *net.TCPConn that is told to read from a
// limited *os.File does so by sendfile.
func TestServerReachesSendfile(t *testing.T) {
	s := newStore(t, t.TempDir())
	data := put(t, s, "some-key", 1<<20)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc, err := s.Open(r.Context(), "some-key", 0, int64(len(data)))
		if err != nil {
			t.Error(err)
			return
		}
		defer rc.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		if n, err := io.Copy(w, rc); err != nil || n != int64(len(data)) {
			t.Errorf("served %d bytes, %v", n, err)
		}
	}))
	watched := &watchedListener{Listener: server.Listener}
	server.Listener = watched
	server.Start()
	defer server.Close()

	res, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, data) {
		t.Errorf("received %d bytes, %v, want the %d stored", len(got), err, len(data))
	}
	const probed = 512 // net/http copies these itself, to see that the source can be read
	if n := watched.fromFile(); n < int64(len(data))-probed {
		t.Errorf("the connection read %d bytes from a file, want all %d but %d", n, len(data), probed)
	}
}

// watchedListener counts what its connections read from files.
type watchedListener struct {
	net.Listener

	mu sync.Mutex
	n  int64
}

func (l *watchedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{c.(*net.TCPConn), l}, nil
}

func (l *watchedListener) fromFile() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

type watchedConn struct {
	*net.TCPConn
	l *watchedListener
}

func (c *watchedConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	if isFile(r) {
		c.l.mu.Lock()
		c.l.n += n
		c.l.mu.Unlock()
	}
	return n, err
}

// TestOpenOfShortFile reads an object that lost bytes. To take its end for the
// object's would be to serve damage as if it were whole.
func TestOpenOfShortFile(t *testing.T) {
	s := newStore(t, t.TempDir())
	put(t, s, "some-key", 1000)
	_, path := s.path("some-key")
	if err := os.Truncate(path, 600); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func(io.Reader) (int64, error){
		"Read": func(r io.Reader) (int64, error) {
			data, err := io.ReadAll(r)
			return int64(len(data)), err
		},
		"WriteTo": func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) },
	} {
		for _, c := range []struct{ off, n, want int64 }{{0, 1000, 600}, {500, 200, 100}, {700, 10, 0}} {
			rc, err := s.Open(t.Context(), "some-key", c.off, c.n)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := read(rc); n != c.want || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s of %d bytes from %d: %d, %v; want %d, unexpected EOF", name, c.n, c.off, n, err, c.want)
			}
			rc.Close()
		}
	}
}
