package test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	mib        = 1 << 20
	leastPart  = 5 * mib // of S3
	firstParts = 8 * mib // of berth, by default
)

// s3Settings lead berth to a bucket at an endpoint.
func s3Settings(endpoint string) []string {
	return []string{
		"BERTH_STORAGE_S3_BUCKET=berth", "BERTH_STORAGE_S3_REGION=us-east-1", "BERTH_STORAGE_S3_PATH_STYLE=true",
		"BERTH_STORAGE_S3_ENDPOINT=" + endpoint, "AWS_ACCESS_KEY_ID=testkey", "AWS_SECRET_ACCESS_KEY=testsecret1",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}
}

// startGateway runs an S3 service over a folder, with one bucket, and returns its
// endpoint.
func startGateway(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"data/berth", "iam", "attributes"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	c := newClient(t, "versitygw")
	// Attributes in files: those of ext4 have no room for a list of many parts.
	cmd := exec.Command(c.path, "--quiet", "--port", address, "--health", "/health", "--iam-dir", filepath.Join(dir, "iam"),
		"posix", "--sidecar", filepath.Join(dir, "attributes"), filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(), "HOME="+dir, "ROOT_ACCESS_KEY=testkey", "ROOT_SECRET_KEY=testsecret1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 500 {
		if res, err := http.Get("http://" + address + "/health"); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return "http://" + address
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("versitygw did not start")
	return ""
}

// meter is a proxy before an S3 service that counts what passes.
type meter struct {
	url     string
	handler http.Handler

	requests, copies atomic.Int64
	out, in          atomic.Int64 // bytes of objects to the service, and from it
}

func newMeter(t *testing.T, endpoint string) *meter {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	m := &meter{}
	// The request's Host, which is signed, stays as it is.
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = "http", target.Host
		r.Out.Host = r.In.Host
	}}
	proxy.ModifyResponse = func(res *http.Response) error {
		if res.Request.Method == http.MethodGet && res.StatusCode < 300 && !isList(res.Request) {
			res.Body = &countedBody{res.Body, &m.in}
		}
		return nil
	}
	m.handler = proxy
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: m}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	m.url = "http://" + l.Addr().String()
	return m
}

func (m *meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isList(r) {
		m.handler.ServeHTTP(w, r)
		return
	}
	m.requests.Add(1)
	if r.Header.Get("x-amz-copy-source") != "" {
		m.copies.Add(1)
	}
	if r.Method == http.MethodPut {
		r.Body = &countedBody{r.Body, &m.out}
	}
	m.handler.ServeHTTP(w, r)
}

// isList: collection looks for what crashes have left, now and then.
func isList(r *http.Request) bool {
	q := r.URL.Query()
	return r.Method == http.MethodGet && (q.Has("uploads") || q.Has("list-type"))
}

func (m *meter) reset() {
	for _, n := range []*atomic.Int64{&m.requests, &m.copies, &m.out, &m.in} {
		n.Store(0)
	}
}

// wants holds a push of n bytes to what passed.
func (m *meter) wants(t *testing.T, n, part int64) {
	t.Helper()
	if out, in, copies := m.out.Load(), m.in.Load(), m.copies.Load(); out != n || in != 0 || copies != 0 {
		t.Errorf("%d bytes to S3, %d from it, %d copies; want %d, 0, 0", out, in, copies, n)
	}
	if got, most := m.requests.Load(), (n+part-1)/part+3; got > most {
		t.Errorf("%d requests to S3, want at most %d", got, most)
	}
}

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// TestS3Traffic pushes through a whole server, in the ways that clients do, and
// counts what goes to S3: each byte once.
func TestS3Traffic(t *testing.T) {
	gateway := startGateway(t)
	m := newMeter(t, gateway)
	s := mustStartWith(t, append(s3Settings(m.url), "BERTH_STORAGE_S3_PUBLIC_ENDPOINT="+gateway)...)
	push := map[string]func(content stuff, pieces ...int64) error{
		"PATCH and PUT": func(c stuff, _ ...int64) error { _, err := pushBig(s.api, c); return err },
		"POST and PUT": func(c stuff, _ ...int64) error {
			path, err := s.startUpload("s3/app")
			if err != nil {
				return err
			}
			return s.finishUpload(path, c.digest(), c.from(0))
		},
		"POST": func(c stuff, _ ...int64) error {
			_, err := s.send("POST", "/v2/s3/app/blobs/uploads/?digest="+c.digest(), c.from(0), []string{"Content-Type", "application/octet-stream"}, 201)
			return err
		},
	}
	seed := uint64(100)
	for how, push := range push {
		for _, size := range []int64{1, 100_000, leastPart - 1, leastPart, firstParts + 1, 30*mib + 7} {
			t.Run(fmt.Sprint(how, " ", size), func(t *testing.T) {
				seed++
				m.reset()
				if err := push(stuff{seed, size}); err != nil {
					t.Fatal(err)
				}
				m.wants(t, size, firstParts)
			})
		}
	}
	// In pieces: those of 5 MiB and more cost nothing. What is smaller waits in the
	// session and goes out once; a tail that small pieces keep adding to is written
	// down, read back and written again, each byte once.
	for name, c := range map[string]struct {
		piece, size int64
		exact       bool
	}{
		"pieces of 5 MiB": {leastPart, 24*mib + 5, true}, "odd pieces": {7*mib + 12_345, 40*mib + 1, true}, "large pieces": {17*mib + 1, 52 * mib, true},
		"pieces of 1 MiB": {mib, 12 * mib, false}, "small pieces": {77_777, 6 * mib, false},
	} {
		t.Run(name, func(t *testing.T) {
			seed++
			content := stuff{seed, c.size}
			m.reset()
			if err := pushPieces(s.api, content, c.piece); err != nil {
				t.Fatal(err)
			}
			if c.exact {
				m.wants(t, c.size, leastPart) // a piece may end a part
				return
			}
			out, in := m.out.Load(), m.in.Load()
			t.Logf("%d bytes in pieces of %d: %d bytes to S3, %d from it, %d requests", c.size, c.piece, out, in, m.requests.Load())
			if out-in != c.size || out > 2*c.size {
				t.Errorf("%d bytes to S3 and %d from it for %d", out, in, c.size)
			}
		})
	}
}

// pushPieces sends one PATCH a piece.
func pushPieces(a *api, content stuff, piece int64) error {
	path, err := a.startUpload("s3/app")
	if err != nil {
		return err
	}
	r := content.from(0)
	for off := int64(0); off < content.size; off += piece {
		n := min(piece, content.size-off)
		h, err := a.send("PATCH", path, io.LimitReader(r, n), []string{
			"Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", off, off+n-1),
		}, 202)
		if err != nil {
			return err
		}
		if path, err = sessionPath(h); err != nil {
			return err
		}
	}
	return a.finishUpload(path, content.digest(), nil)
}

// mustStartWith is mustStart, with settings and a data folder of its own.
func mustStartWith(t *testing.T, settings ...string) *server {
	t.Helper()
	s, err := start(filepath.Join(t.TempDir(), "data"), settings...)
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, s)
	return s
}

// TestS3LargeBlob pushes a blob of BERTH_S3_BLOB_MIB and pulls it by redirection.
// From 5121 on it is larger than what S3 takes in one request.
func TestS3LargeBlob(t *testing.T) {
	gateway := startGateway(t)
	m := newMeter(t, gateway)
	s := mustStartWith(t, append(s3Settings(m.url), "BERTH_STORAGE_S3_PUBLIC_ENDPOINT="+gateway)...)
	content := stuff{90, int64(number(t, "BERTH_S3_BLOB_MIB", 160)) * mib}
	began := time.Now()
	digest, err := pushBig(s.api, content)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB pushed in %v: %d requests to S3, %d bytes", content.size>>20, time.Since(began).Round(time.Second), m.requests.Load(), m.out.Load())
	m.wants(t, content.size, firstParts)
	m.reset()

	// What crosses the connection to berth, both ways, with all headers.
	var moved atomic.Int64
	through := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err == nil && address == s.host() {
			c = &countedConn{c, &moved}
		}
		return c, err
	}}}
	direct := &api{s.base, through}
	began = time.Now()
	if err := direct.checkBlob("big/app", digest, content.size); err != nil {
		t.Fatal(err)
	}
	t.Logf("pulled in %v: %d bytes through berth, %d requests of its to S3", time.Since(began).Round(time.Second), moved.Load(), m.requests.Load())
	if moved.Load() == 0 || moved.Load() >= 10_000 || m.requests.Load() != 0 {
		t.Errorf("a redirected pull moves %d bytes through berth and makes it ask S3 %d times; want fewer than 10 000, and none", moved.Load(), m.requests.Load())
	}
	head, err := s.send("HEAD", "/v2/big/app/blobs/"+digest, nil, nil, 200)
	if err != nil || head.Get("Content-Length") != fmt.Sprint(content.size) || m.requests.Load() != 0 {
		t.Errorf("HEAD: Content-Length %s, %v, %d requests to S3", head.Get("Content-Length"), err, m.requests.Load())
	}
	// A part of it, as clients go on with one that broke off.
	off := content.size - 1000
	res, err := s.call("GET", "/v2/big/app/blobs/"+digest, nil, []string{"Range", fmt.Sprintf("bytes=%d-", off)}, 206)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	want, _ := io.ReadAll(content.from(off))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the last %d bytes by redirection: %d bytes, %v", len(want), len(got), err)
	}
}

type countedConn struct {
	net.Conn
	n *atomic.Int64
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// TestS3Streamed: clients that must not be redirected get blobs through berth,
// whole and in parts.
func TestS3Streamed(t *testing.T) {
	gateway := startGateway(t)
	content := stuff{95, 12*mib + 3}
	for name, c := range map[string]struct {
		settings []string
		proxied  string // the client's address, as a proxy tells
		status   int
	}{
		"never":                {[]string{"BERTH_STORAGE_S3_REDIRECT=never"}, "", 200},
		"near":                 {networks("127.0.0.0/8"), "", 307},
		"far":                  {networks("10.0.0.0/8"), "", 200},
		"behind a proxy, near": {append(networks("10.0.0.0/8"), "BERTH_HTTP_TRUSTED_PROXIES=127.0.0.1"), "10.1.2.3", 307},
		"behind a proxy, far":  {append(networks("127.0.0.0/8"), "BERTH_HTTP_TRUSTED_PROXIES=127.0.0.1"), "10.1.2.3", 200},
		"a proxy made up":      {networks("10.0.0.0/8"), "10.1.2.3", 200},
	} {
		t.Run(name, func(t *testing.T) {
			settings := append(s3Settings(gateway), c.settings...)
			settings = append(settings, "BERTH_STORAGE_S3_PREFIX="+strings.NewReplacer(" ", "-", ",", "").Replace(name), "BERTH_INSECURE_ANONYMOUS=true")
			s := mustStartWith(t, settings...)
			digest, err := pushBig(s.api, content)
			if err != nil {
				t.Fatal(err)
			}
			s.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			header := []string{"X-Forwarded-For", c.proxied}
			if c.proxied == "" {
				header = nil
			}
			h, err := s.send("GET", "/v2/big/app/blobs/"+digest, nil, header, c.status)
			if err != nil {
				t.Fatal(err)
			}
			if (h.Get("Location") != "") != (c.status == 307) {
				t.Errorf("%d with Location %q", c.status, h.Get("Location"))
			}
			if c.status == 307 || c.proxied != "" { // what follows comes from this machine
				return
			}
			if err := errors.Join(s.checkBlob("big/app", digest, content.size), s.checkPart("big/app", digest, content, 4*mib-1, 5*mib)); err != nil {
				t.Error(err)
			}
		})
	}
}

func networks(list string) []string {
	return []string{"BERTH_STORAGE_S3_REDIRECT=networks", "BERTH_STORAGE_S3_REDIRECT_NETWORKS=" + list}
}

// checkPart fetches n bytes of a blob from off.
func (a *api) checkPart(repo, digest string, content stuff, off, n int64) error {
	res, err := a.call("GET", "/v2/"+repo+"/blobs/"+digest, nil, []string{"Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1)}, 206)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, want := sha256.New(), sha256.New()
	if _, err := io.Copy(got, res.Body); err != nil {
		return err
	}
	io.CopyN(want, content.from(off), n)
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return fmt.Errorf("%d bytes from %d are wrong", n, off)
	}
	return nil
}

// TestS3Memory has 20 clients push blobs of BERTH_S3_MIB each at once. With
// BERTH_S3_DISCARD=true the service is a stand-in that keeps nothing, for sizes
// that no disk has room for: berth does the same for it as for any other.
func TestS3Memory(t *testing.T) {
	const clients = 20
	size := int64(number(t, "BERTH_S3_MIB", 48)) * mib
	for name, c := range map[string]struct {
		settings []string
		limit    int64
	}{
		"default": {nil, 1 << 30},
		"small":   {[]string{"BERTH_STORAGE_S3_MEMORY=16MiB", "BERTH_STORAGE_S3_TOTAL_MEMORY=64MiB"}, 256 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			discard := os.Getenv("BERTH_S3_DISCARD") == "true"
			endpoint := ""
			if discard {
				endpoint = startDiscard(t)
			} else {
				endpoint = startGateway(t)
			}
			s := mustStartWith(t, append(s3Settings(endpoint), c.settings...)...)
			seeds := make([]uint64, clients)
			for i := range seeds {
				seeds[i] = uint64(200 + i)
			}
			began := time.Now()
			var last string
			var mu sync.Mutex
			err := together(seeds, func(seed uint64) error {
				digest, err := pushBig(s.api, stuff{seed, size})
				mu.Lock()
				defer mu.Unlock()
				last = digest
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			peak := s.peakMemory(t)
			t.Logf("%d pushes of %d MiB in %v, peak resident memory: %d MiB", clients, size>>20, time.Since(began).Round(time.Second), peak>>20)
			if peak >= c.limit {
				t.Errorf("peak resident memory is %d MiB, want less than %d", peak>>20, c.limit>>20)
			}
			if !discard {
				if err := s.checkBlob("big/app", last, size); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// startDiscard serves as much of S3 as a push needs, and keeps nothing.
func startDiscard(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		w.Header().Set("ETag", `"0"`)
		q := r.URL.Query()
		switch {
		case r.Method == http.MethodPut:
		case r.Method == http.MethodPost && q.Has("uploads"):
			fmt.Fprint(w, "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")
		case r.Method == http.MethodPost && q.Has("uploadId"):
			fmt.Fprint(w, "<CompleteMultipartUploadResult><ETag>0</ETag></CompleteMultipartUploadResult>")
		default:
			http.Error(w, "not kept here", http.StatusNotFound)
		}
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return "http://" + l.Addr().String()
}
