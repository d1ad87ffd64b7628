package s3blob

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/blob/s3blob/s3test"
)

func fetch(t *testing.T, address string, header ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func TestURL(t *testing.T) {
	for service, server := range s3test.StartAll(t) {
		t.Run(service, func(t *testing.T) { wantURL(t, open(t, options(t, server)), http.StatusForbidden) })
	}
}

// wantURL has a client without credentials fetch an object, whole and in part,
// and none after the URL's time.
func wantURL(t *testing.T, s *Store, late int) {
	t.Helper()
	data := content(1, 100_000)
	seal(t, s, "some-key", appendTo(t, s, "some-key", blob.State{}, data))
	address, err := s.URL(t.Context(), "some-key", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	resp, body := fetch(t, address)
	if resp.StatusCode != http.StatusOK || !bytes.Equal(body, data) {
		t.Errorf("%s with %d bytes", resp.Status, len(body))
	}
	if got := resp.Header.Get("Content-Type"); got != contentType {
		t.Errorf("Content-Type %q", got)
	}
	if got := resp.Header.Get("Content-Disposition"); got != "attachment" {
		t.Errorf("Content-Disposition %q", got)
	}
	resp, body = fetch(t, address, "Range", "bytes=99000-")
	if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(body, data[99_000:]) {
		t.Errorf("a part: %s with %d bytes", resp.Status, len(body))
	}
	if resp, body := fetch(t, strings.Replace(address, "some-key", "other-key", 1)); resp.StatusCode != late || bytes.Contains(body, data[:100]) {
		t.Errorf("for another object: %s", resp.Status)
	}
	brief, err := s.URL(t.Context(), "some-key", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond)
	if resp, _ := fetch(t, brief); resp.StatusCode != late {
		t.Errorf("after its time: %s", resp.Status)
	}
}

// TestPublicEndpoint: clients reach the service by another name than Berth.
func TestPublicEndpoint(t *testing.T) {
	server := s3test.Start(t)
	o := options(t, server)
	o.PublicEndpoint = o.Endpoint
	o.Endpoint = "http://" + s3test.NewProxy(t, server.Address).Address
	s := open(t, o)
	wantURL(t, s, http.StatusForbidden)
	address, err := s.URL(t.Context(), "some-key", time.Minute)
	if err != nil || !strings.HasPrefix(address, o.PublicEndpoint+"/") || strings.Contains(address, s3test.SecretKey) {
		t.Errorf("%q, %v", address, err)
	}
}

// roles gives credentials of a role, which run out.
type roles struct {
	aws.CredentialsProvider
	left *time.Duration
	err  *error
}

func (r roles) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := r.CredentialsProvider.Retrieve(ctx)
	c.CanExpire, c.Expires = true, time.Now().Add(*r.left)
	return c, errors.Join(err, *r.err)
}

// TestCredentialsThatEnd: a URL dies with the credentials that signed it, so it
// never claims to live longer; soon before their end there is none.
func TestCredentialsThatEnd(t *testing.T) {
	o := options(t, s3test.Start(t))
	var left time.Duration
	var failed error
	o.Config.Credentials = roles{o.Config.Credentials, &left, &failed}
	s := open(t, o)
	for _, c := range []struct{ left, wanted, least, most time.Duration }{
		{time.Hour, 20 * time.Minute, 20 * time.Minute, 20 * time.Minute},
		{10 * time.Minute, 20 * time.Minute, 9 * time.Minute, 10 * time.Minute},
		{time.Minute, 20 * time.Minute, 0, 0},
		{time.Minute, 30 * time.Second, 30 * time.Second, 30 * time.Second},
	} {
		left = c.left
		address, err := s.URL(t.Context(), "some-key", c.wanted)
		if c.most == 0 {
			if !errors.Is(err, blob.ErrUnsupported) {
				t.Errorf("%v before the end: %q, %v", c.left, address, err)
			}
			continue
		}
		u, parseErr := url.Parse(address)
		if err != nil || parseErr != nil {
			t.Fatal(err, parseErr)
		}
		lives, err := time.ParseDuration(u.Query().Get("X-Amz-Expires") + "s")
		if err != nil || lives < c.least || lives > c.most {
			t.Errorf("%v before the end, a URL for %v is good for %v, %v", c.left, c.wanted, lives, err)
		}
	}
	failed = errors.New("no role here")
	if _, err := s.URL(t.Context(), "some-key", time.Minute); err == nil || errors.Is(err, blob.ErrUnsupported) {
		t.Errorf("without credentials: %v", err)
	}
}
