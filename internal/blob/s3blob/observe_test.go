package s3blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/s3blob/s3test"
)

// calls hears what a store asks of the service.
type calls struct {
	mu   sync.Mutex
	list []Call
}

func (c *calls) observe(ctx context.Context, call Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx == nil || call.Start.IsZero() || call.Took <= 0 || !slices.Contains(Outcomes(), call.Outcome) {
		call.Operation += " WRONG"
	}
	c.list = append(c.list, call)
}

// take lists what was heard since the last time.
func (c *calls) take() (lines []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.list {
		lines = append(lines, fmt.Sprintf("%s %s %d sent %d", call.Operation, call.Outcome, call.Attempts, call.Sent))
	}
	c.list = nil
	return lines
}

// TestObserve: each call is told once, with its attempts, bytes and what came of
// it; what asks the service for nothing is not told.
func TestObserve(t *testing.T) {
	server := s3test.Start(t)
	heard := &calls{}
	o := options(t, server)
	o.Observe = heard.observe
	s, rec := recorded(t, o)
	want := func(lines ...string) {
		t.Helper()
		if got := heard.take(); !slices.Equal(got, lines) {
			t.Errorf("heard\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
		}
	}
	data := content(1, 1000)
	seal(t, s, "some-key", appendTo(t, s, "some-key", blob.State{}, data))
	want("PutObject done 1 sent 1000")

	rec.Fault = func(n int, _ string, r *http.Request) (*http.Response, error) {
		if rec.Requests("PutObject") != 2 {
			return nil, nil
		}
		return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
	}
	seal(t, s, "other-key", appendTo(t, s, "other-key", blob.State{}, data))
	want("PutObject done 2 sent 2000")

	wantObject(t, s, "some-key", data)
	heard.mu.Lock()
	if len(heard.list) == 0 || heard.list[0].Received == 0 {
		t.Errorf("reading %d bytes is %+v", len(data), heard.list)
	}
	heard.list = nil
	heard.mu.Unlock()

	if _, err := s.URL(t.Context(), "some-key", time.Minute); err != nil {
		t.Fatal(err)
	}
	want()

	if _, err := s.Open(t.Context(), "no-key", 0, 1); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("open what is not there: %v", err)
	}
	want("GetObject absent 1 sent 0")

	rec.Fault = func(int, string, *http.Request) (*http.Response, error) { return nil, errKilled }
	if _, err := s.Open(t.Context(), "some-key", 0, 1); !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("open without a service: %v", err)
	}
	if got := heard.take(); len(got) != 1 || !strings.HasPrefix(got[0], "GetObject unreachable ") {
		t.Errorf("without a service: %q", got)
	}

	rec.Fault = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Open(ctx, "some-key", 0, 1)
	if got := heard.take(); len(got) > 1 || len(got) == 1 && !strings.HasPrefix(got[0], "GetObject canceled ") {
		t.Errorf("canceled: %q", got)
	}
}

// TestWrongCredentialsAreRefusals: operators see them apart from a service that fails.
func TestWrongCredentialsAreRefusals(t *testing.T) {
	server := s3test.Start(t)
	heard := &calls{}
	o := options(t, server)
	cfg := o.Config.Copy()
	cfg.Credentials = wrong{}
	o.Config, o.Observe = &cfg, heard.observe
	s := open(t, o)
	if _, err := s.Open(t.Context(), "some-key", 0, 1); err == nil {
		t.Error("the wrong credentials open an object")
	}
	if got := heard.take(); len(got) != 1 || got[0] != "GetObject refused 1 sent 0" {
		t.Errorf("heard %q", got)
	}
}

type wrong struct{}

func (wrong) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: s3test.AccessKey, SecretAccessKey: "another"}, nil
}

// TestOutcomes: what the service answers to a call that asks too much, or too
// late, is not taken for what an operator must see to.
func TestOutcomes(t *testing.T) {
	heard := &calls{}
	o := options(t, s3test.Start(t))
	o.Observe = heard.observe
	s, rec := recorded(t, o)
	for _, c := range []struct {
		status     int
		code, want string
	}{
		{404, "NoSuchKey", "absent"}, {404, "NoSuchUpload", "absent"}, {404, "NoSuchBucket", "refused"}, {403, "AccessDenied", "refused"},
		{412, "PreconditionFailed", "taken"}, {409, "ConditionalRequestConflict", "taken"},
	} {
		rec.Fault = func(_ int, _ string, r *http.Request) (*http.Response, error) {
			return s3test.Answer(r, c.status, c.code), nil
		}
		s.deleteOne(t.Context(), "key")
		if got, want := fmt.Sprint(heard.take()), fmt.Sprintf("[DeleteObject %s 1 sent 0]", c.want); got != want {
			t.Errorf("%d %s: %s, want %s", c.status, c.code, got, want)
		}
	}
}
