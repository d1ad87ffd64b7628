package s3blob

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/s3blob/s3test"
)

var errKilled = errors.New("the process is dead")

// TestKilledAnywhere lets a process die at each of its requests, before and
// after the service has done it. What Append acknowledged before is there for
// the next process, which sends the rest and seals.
func TestKilledAnywhere(t *testing.T) {
	server := s3test.Start(t)
	data := content(5, 25*mib)
	for name, cuts := range map[string][]int{
		"small": {1000, 2000, 2500}, "tail": {mib, 2 * mib, 2*mib + 100_000}, "spilled": {3 * mib, 3*mib + 1000, 4 * mib},
		"parts": {9 * mib, 10 * mib, 23 * mib}, "spilled, then parts": {2 * mib, 2*mib + 1, 12 * mib}, "parts, then spilled": {9 * mib, 11 * mib, 11*mib + 1},
	} {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %t", name, done), func(t *testing.T) {
				points := 0
				for ; killAt(t, server, data, cuts, points+1, done); points++ {
				}
				if points == 0 {
					t.Error("no request was a point to die at")
				}
			})
		}
	}
}

// killAt runs an upload in a process that dies at its n-th request, if it has
// so many, and ends the upload in others.
func killAt(t *testing.T, server *s3test.Server, data []byte, cuts []int, n int, done bool) bool {
	o := options(t, server)
	o.Attempts = 1
	mortal, rec := recorded(t, o)
	o.Attempts = 0 // of those that live: the default
	var dead atomic.Bool
	rec.Fault = func(i int, _ string, _ *http.Request) (*http.Response, error) {
		if i > n || i == n && !done {
			dead.Store(true)
			return nil, errKilled
		}
		return nil, nil
	}
	rec.Lose = func(i int, _ string) error {
		if i >= n {
			dead.Store(true)
			return errKilled
		}
		return nil
	}
	key := fmt.Sprintf("key-%d", n)
	st, size := blob.State{}, 0
	for _, cut := range cuts {
		next, err := mortal.Append(t.Context(), key, st, bytes.NewReader(data[size:cut]))
		if err == nil {
			st, size = next, cut
			continue
		}
		if next.Size != st.Size {
			t.Fatalf("killed at request %d, Append claims %d bytes, not %d", n, next.Size, st.Size)
		}
		st = appendTo(t, open(t, o), key, st, data[size:cut])
		size = cut
	}
	mortal.Seal(t.Context(), key, st) // may have died, and may have done it all the same
	for range 2 {
		if err := open(t, o).Seal(t.Context(), key, st); err != nil && !errors.Is(err, blob.ErrSealed) {
			t.Fatalf("killed at request %d; Seal by another process: %v", n, err)
		}
	}
	wantObject(t, open(t, o), key, data[:size])
	return dead.Load()
}

// TestOverloaded answers every other request with 503: only what failed is sent
// again.
func TestOverloaded(t *testing.T) {
	server := s3test.Start(t)
	s, rec := recorded(t, options(t, server))
	var refused atomic.Int64
	rec.Fault = func(n int, _ string, r *http.Request) (*http.Response, error) {
		if n%2 == 0 {
			refused.Add(1)
			return s3test.Answer(r, http.StatusServiceUnavailable, "SlowDown"), nil
		}
		return nil, nil
	}
	data := content(6, 8*5*mib+1)
	st, err := s.Append(t.Context(), "some-key", blob.State{}, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	seal(t, s, "some-key", st)
	wantObject(t, s, "some-key", data)
	out, _, copies := rec.Traffic()
	if out != int64(len(data)) || copies != 0 {
		t.Errorf("%d bytes taken by the service, %d copies; want %d, 0", out, copies, len(data))
	}
	if refused.Load() == 0 {
		t.Error("nothing was refused")
	}
}

// TestConnectionsBreak resets connections in the middle of parts and of answers.
func TestConnectionsBreak(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.Address)
	o := options(t, server)
	o.Endpoint = "http://" + proxy.Address
	s, rec := recorded(t, o)
	rec.Client = &http.Client{Transport: &http.Transport{}} // no connections of other tests
	data := content(7, 40*mib)
	proxy.CutRequests(3*mib, 3)
	st := appendTo(t, s, "some-key", blob.State{}, data)
	seal(t, s, "some-key", st)
	if parts, most := rec.Requests("UploadPart"), 5+3; parts > most {
		t.Errorf("%d parts were sent, want at most %d", parts, most)
	}
	proxy.CutAnswers(2*mib, 5)
	wantObject(t, s, "some-key", data)
	if left := proxy.Left(); left != 0 {
		t.Errorf("%d connections were not broken", left)
	}
	if gets := rec.Requests("GetObject"); gets != 6 {
		t.Errorf("%d requests to read over 5 broken connections, want 6", gets)
	}
}

func TestSlow(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.Address)
	proxy.Slow(200 * time.Millisecond)
	o := options(t, server)
	o.Endpoint = "http://" + proxy.Address
	s, data := open(t, o), content(8, 20*mib)
	seal(t, s, "some-key", appendTo(t, s, "some-key", blob.State{}, data))
	o.Endpoint = server.URL()
	wantObject(t, open(t, o), "some-key", data)
}

// TestNoAnswer lets the service take a request and never answer it.
func TestNoAnswer(t *testing.T) {
	server := s3test.Start(t)
	o := options(t, server)
	o.Timeout = 300 * time.Millisecond
	s, rec := recorded(t, o)
	rec.Fault = func(n int, _ string, r *http.Request) (*http.Response, error) {
		if n > 1 {
			return nil, nil
		}
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	data := content(15, 1000)
	seal(t, s, "some-key", appendTo(t, s, "some-key", blob.State{}, data))
	if n := rec.Requests(""); n != 2 {
		t.Errorf("%d requests, want one that is not answered, and another", n)
	}
	wantObject(t, s, "some-key", data)
	o.Attempts = 1
	s, rec = recorded(t, o)
	rec.Fault = func(_ int, _ string, r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if err := s.Seal(t.Context(), "other-key", blob.State{}); !errors.Is(err, blob.ErrUnavailable) || !errors.Is(err, errSlow) {
		t.Errorf("no answer at all: %v", err)
	}
}

// TestClientGone: what came before the client went is kept, although its
// context is done.
func TestClientGone(t *testing.T) {
	server := s3test.Start(t)
	s := open(t, options(t, server))
	data := content(9, 20*mib)
	for i, n := range []int{0, 1, mib, MinPart, 8 * mib, 17 * mib} {
		key := fmt.Sprintf("gone-%d", i)
		r := io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(errReset))
		st, err := s.Append(cancelled(t), key, blob.State{}, r)
		if !errors.Is(err, errReset) || st.Size != int64(n) {
			t.Fatalf("%d bytes: state of %d, %v", n, st.Size, err)
		}
		seal(t, s, key, appendTo(t, s, key, st, data[n:]))
		wantObject(t, s, key, data)
	}
}

func TestErrors(t *testing.T) {
	server := s3test.Start(t)
	o := options(t, server)
	o.Attempts = 2
	answer := func(status int, code string) func(int, string, *http.Request) (*http.Response, error) {
		return func(_ int, _ string, r *http.Request) (*http.Response, error) {
			return s3test.Answer(r, status, code), nil
		}
	}
	for name, c := range map[string]struct {
		fault func(int, string, *http.Request) (*http.Response, error)
		want  error
		text  string
	}{
		"overloaded":  {answer(503, "SlowDown"), blob.ErrUnavailable, "SlowDown"},
		"broken":      {answer(500, "InternalError"), blob.ErrUnavailable, "InternalError"},
		"gateway":     {answer(502, "BadGateway"), blob.ErrUnavailable, "BadGateway"},
		"unreachable": {func(int, string, *http.Request) (*http.Response, error) { return nil, io.EOF }, blob.ErrUnavailable, "EOF"},
		"cut":         {func(int, string, *http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, blob.ErrUnavailable, "EOF"},
		"in the way":  {answer(409, "OperationAborted"), blob.ErrUnavailable, "OperationAborted"},
		"full":        {answer(507, "XMinioStorageFull"), blob.ErrFull, "XMinioStorageFull"},
		"quota":       {answer(403, "QuotaExceeded"), blob.ErrFull, "QuotaExceeded"},
		"denied":      {answer(403, "AccessDenied"), blob.ErrUnavailable, "allow these credentials"},
		"clock":       {answer(403, "RequestTimeTooSkewed"), blob.ErrUnavailable, "clock"},
		"bucket":      {answer(404, "NoSuchBucket"), blob.ErrUnavailable, "create the bucket"},
	} {
		t.Run(name, func(t *testing.T) {
			s, rec := recorded(t, o)
			rec.Fault = c.fault
			st, err := s.Append(t.Context(), "some-key", blob.State{}, bytes.NewReader(make([]byte, 6*mib)))
			if st.Size != 0 {
				t.Errorf("Append claims %d bytes", st.Size)
			}
			_, openErr := s.Open(t.Context(), "some-key", 0, 1)
			for method, err := range map[string]error{
				"Append": err, "Open": openErr, "Seal": s.Seal(t.Context(), "some-key", blob.State{}),
				"Delete": s.Delete(t.Context(), "some-key", "other-key"), "Check": s.Check(t.Context()),
			} {
				for _, sentinel := range []error{blob.ErrUnavailable, blob.ErrFull, blob.ErrNotFound} {
					if got, want := errors.Is(err, sentinel), sentinel == c.want; got != want {
						t.Errorf("%s: %v; is %q: %t", method, err, sentinel, got)
					}
				}
				if err == nil || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%s: %v, want %q in it", method, err, c.text)
				}
				if err != nil && strings.Contains(err.Error(), s3test.SecretKey) {
					t.Errorf("%s tells the secret key: %v", method, err)
				}
			}
		})
	}
}

// TestWrongKey asks the real service with credentials it does not know.
func TestWrongKey(t *testing.T) {
	server := s3test.Start(t)
	o := options(t, server)
	o.Bucket = "absent"
	if err := open(t, o).Check(t.Context()); err == nil || errors.Is(err, blob.ErrNotFound) || !strings.Contains(err.Error(), "create the bucket") {
		t.Errorf("absent bucket: %v", err)
	}
	server.Kill()
	if err := open(t, o).Check(t.Context()); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("dead service: %v", err)
	}
}

// TestRestartOfService kills the service in the middle of an upload, which goes
// on when it is back.
func TestRestartOfService(t *testing.T) {
	server := s3test.Start(t)
	o := options(t, server)
	o.Backoff = 2 * time.Second
	s := open(t, o)
	data := content(10, 40*mib)
	restart := &hook{at: 25 * mib, do: func() {
		server.Kill()
		go func() { time.Sleep(500 * time.Millisecond); server.Run(t) }()
	}}
	st, err := s.Append(t.Context(), "some-key", blob.State{}, io.TeeReader(bytes.NewReader(data), restart))
	if err != nil {
		t.Fatal(err)
	}
	seal(t, s, "some-key", st)
	wantObject(t, s, "some-key", data)
}

// hook does something when so many bytes have passed.
type hook struct {
	n, at int
	do    func()
}

func (h *hook) Write(p []byte) (int, error) {
	before := h.n
	h.n += len(p)
	if before < h.at && h.n >= h.at {
		h.do()
	}
	return len(p), nil
}

// TestLost: an upload that somebody else ended in the service is lost, and says so.
func TestLost(t *testing.T) {
	server := s3test.Start(t)
	s, rec := recorded(t, options(t, server))
	data := content(11, 9*mib)
	st := appendTo(t, s, "some-key", blob.State{}, data)
	err := s.eachUpload(t.Context(), *s.name("some-key"), func(u types.MultipartUpload) error { return s.abortMultipart(t.Context(), u) })
	if err != nil {
		t.Fatal(err)
	}
	next, err := insist(func() (blob.State, error) { return s.Append(t.Context(), "some-key", st, bytes.NewReader(data)) })
	if !errors.Is(err, blob.ErrNotFound) || next.Size != st.Size {
		t.Errorf("Append: %d bytes, %v", next.Size, err)
	}
	if err := s.Seal(t.Context(), "some-key", st); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Seal: %v", err)
	}
	// An object under the same key may be that upload's if it has the size. (This
	// service takes it for that always, which S3 does not.)
	other := appendTo(t, s, "some-key", blob.State{}, content(12, int64(len(data))+1))
	seal(t, s, "some-key", other)
	rec.Fault = func(_ int, op string, r *http.Request) (*http.Response, error) {
		if op == "CompleteMultipartUpload" {
			return s3test.Answer(r, http.StatusNotFound, "NoSuchUpload"), nil
		}
		return nil, nil
	}
	if err := s.Seal(t.Context(), "some-key", other); !errors.Is(err, blob.ErrSealed) {
		t.Errorf("Seal of what was sealed: %v", err)
	}
	if err := s.Seal(t.Context(), "some-key", st); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Seal beside another upload's object: %v", err)
	}
}
