package s3blob

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/s3blob/s3test"
)

// TestSealReplacesNothing has two writers go on from one state, as a process
// that was frozen and the one that took over do. Whoever seals first wins, also
// when the other's request was under way before; the loser learns of it.
func TestSealReplacesNothing(t *testing.T) {
	for service, server := range s3test.StartAll(t) {
		for name, c := range map[string]struct {
			common        []int64 // bytes of each Append to the state that both have
			first, second int64
			want          error
		}{
			"small, one size":    {nil, 1000, 1000, blob.ErrSealed},
			"small, other sizes": {nil, 1000, 2000, blob.ErrNotFound},
			"empty and not":      {nil, 0, 10, blob.ErrNotFound},
			"each spills":        {[]int64{mib, mib}, 1000, 1000, blob.ErrSealed},
			"spilled before":     {[]int64{3 * mib, 1000}, 100_000, 100_000, blob.ErrSealed},
			"parts of one size":  {[]int64{9 * mib}, 6 * mib, 6 * mib, blob.ErrNotFound},
			"last parts":         {[]int64{9 * mib}, 1000, 1000, blob.ErrSealed},
		} {
			t.Run(service+" "+name, func(t *testing.T) {
				o := options(t, server)
				winner := open(t, o)
				frozen, rec := recorded(t, o)
				start, want := blob.State{}, []byte(nil)
				for _, n := range c.common {
					data := content(1, n)
					start, want = appendTo(t, winner, "some-key", start, data), append(want, data...)
				}
				own, others := content(2, c.first), content(3, c.second)
				sealed := false
				rec.Fault = func(_ int, op string, _ *http.Request) (*http.Response, error) {
					if op != "HeadObject" && op != "GetObject" && !sealed {
						sealed = true
						seal(t, winner, "some-key", appendTo(t, winner, "some-key", start, own))
					}
					return nil, nil
				}
				st, err := insist(func() (blob.State, error) {
					return frozen.Append(t.Context(), "some-key", start, bytes.NewReader(others))
				})
				if err == nil {
					err = frozen.Seal(t.Context(), "some-key", st)
				}
				if !errors.Is(err, c.want) {
					t.Errorf("the writer that was late gets %v, want %q", err, c.want)
				}
				wantObject(t, winner, "some-key", append(want, own...))
			})
		}
	}
}

// insist repeats what was not answered: versitygw closes a connection whose
// request it refuses before it has read the body, and the answer may be lost.
func insist(fn func() (blob.State, error)) (st blob.State, err error) {
	for range 10 {
		if st, err = fn(); !errors.Is(err, blob.ErrUnavailable) {
			break
		}
	}
	return st, err
}

// TestLostPart: a part that a frozen process wrote anew does not get into the
// object of the one that took over, which is told that it is lost.
func TestLostPart(t *testing.T) {
	for service, server := range s3test.StartAll(t) {
		t.Run(service, func(t *testing.T) { lostPart(t, options(t, server)) })
	}
}

func lostPart(t *testing.T, o Options) {
	s, frozen := open(t, o), open(t, o)
	start := appendTo(t, s, "some-key", blob.State{}, content(1, 9*mib))
	st := appendTo(t, s, "some-key", start, content(2, 6*mib))
	appendTo(t, frozen, "some-key", start, content(3, 6*mib))
	if err := s.Seal(t.Context(), "some-key", st); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Seal with a part that was written over: %v", err)
	}
	if _, err := s.Open(t.Context(), "some-key", 0, 1); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("there is an object: %v", err)
	}
	// The client sends the same again: the same part is none that was lost.
	st = appendTo(t, s, "some-key", start, content(2, 6*mib))
	appendTo(t, frozen, "some-key", start, content(2, 6*mib))
	seal(t, s, "some-key", st)
}

// TestUnconditionalService lacks conditional writes, in one of the ways known.
func TestUnconditionalService(t *testing.T) {
	server := s3test.Start(t)
	for name, c := range map[string]struct {
		status int
		code   string
	}{"lacks them": {501, "NotImplemented"}, "refuses the header": {400, "InvalidArgument"}, "knows it not": {400, "InvalidRequest"}} {
		t.Run(name, func(t *testing.T) {
			s, rec := recorded(t, options(t, server))
			refused := 0
			rec.Fault = func(_ int, _ string, r *http.Request) (*http.Response, error) {
				if r.Header.Get("If-None-Match") != "" {
					refused++
					return s3test.Answer(r, c.status, c.code), nil
				}
				return nil, nil
			}
			for key, n := range map[string]int64{"small-1": 10, "small-2": 10, "large-1": 6 * mib, "large-2": 6 * mib} {
				data := content(uint64(n), n)
				seal(t, s, key, appendTo(t, s, key, blob.State{}, data))
				wantObject(t, s, key, data)
			}
			if refused != 1 {
				t.Errorf("%d conditional writes were tried, want one", refused)
			}
		})
	}
}

// TestOtherRefusals: an argument that is wrong in itself does not make writes
// unconditional.
func TestOtherRefusals(t *testing.T) {
	server := s3test.Start(t)
	s, rec := recorded(t, options(t, server))
	bad := true
	rec.Fault = func(_ int, op string, r *http.Request) (*http.Response, error) {
		if bad && op == "PutObject" {
			return s3test.Answer(r, http.StatusBadRequest, "InvalidArgument"), nil
		}
		return nil, nil
	}
	if err := s.Seal(t.Context(), "some-key", blob.State{}); err == nil || !strings.Contains(err.Error(), "InvalidArgument") {
		t.Errorf("Seal that is refused: %v", err)
	}
	bad = false
	if s.rash.Load() {
		t.Error("writes are not conditional any more")
	}
	seal(t, s, "some-key", blob.State{})
	if err := s.Seal(t.Context(), "some-key", blob.State{}); !errors.Is(err, blob.ErrSealed) {
		t.Errorf("Seal once more: %v", err)
	}
}

// TestConflict: others write the object at this moment. Later it is clear who won.
func TestConflict(t *testing.T) {
	server := s3test.Start(t)
	s, rec := recorded(t, options(t, server))
	rec.Fault = func(_ int, op string, r *http.Request) (*http.Response, error) {
		if op == "PutObject" {
			return s3test.Answer(r, http.StatusConflict, conflict), nil
		}
		return nil, nil
	}
	if err := s.Seal(t.Context(), "some-key", blob.State{}); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("Seal in a conflict: %v", err)
	}
	rec.Fault = nil
	seal(t, s, "some-key", blob.State{})
}

// TestCompleteTooEarly: the service calls an upload complete whose object is not
// there, as one does that was killed while it made it. Nobody is told that the
// object is, before it is.
func TestCompleteTooEarly(t *testing.T) {
	server := s3test.Start(t)
	s, rec := recorded(t, options(t, server))
	data := content(1, 9*mib)
	st := appendTo(t, s, "some-key", blob.State{}, data)
	early := 0
	rec.Fault = func(_ int, op string, r *http.Request) (*http.Response, error) {
		if op != "CompleteMultipartUpload" {
			return nil, nil
		}
		early++
		const done = `<CompleteMultipartUploadResult><ETag>"x"</ETag></CompleteMultipartUploadResult>`
		return &http.Response{
			StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/xml"}},
			Body: io.NopCloser(strings.NewReader(done)), ContentLength: int64(len(done)), Request: r,
		}, nil
	}
	if err := s.Seal(t.Context(), "some-key", st); !errors.Is(err, blob.ErrUnavailable) || early != 1 {
		t.Errorf("Seal of what is not there, %d times: %v", early, err)
	}
	rec.Fault = nil
	seal(t, s, "some-key", st)
	wantObject(t, s, "some-key", data)
}
