package remote

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// refreshTime bounds asking for a session's offset after its client has gone.
const refreshTime = 10 * time.Second

// upload is a session upstream. Its id follows the Location of each answer.
type upload struct {
	registry  *Registry
	repo      string
	location  *url.URL
	off       int64
	untouched bool // nobody else can know the session yet
}

func (u *upload) ID() string    { return u.registry.sessionID(u.repo, u.location) }
func (u *upload) Offset() int64 { return u.off }

// Append sends r. A wrong off is refused by upstream, which is told the range
// of the first chunk. A reader that fails ends the body in good order, so that
// upstream keeps what came.
func (u *upload) Append(ctx context.Context, off int64, r io.Reader) error {
	src := u.registry.look(r)
	defer u.registry.release(src)
	return u.append(ctx, off, src)
}

func (u *upload) append(ctx context.Context, off int64, src *source) error {
	if src.err != nil { // head is all there is
		if err := u.appendBytes(ctx, off, src.head); err != nil {
			return err
		}
		return unlessEOF(src.err)
	}
	switch {
	case off > 0 && u.untouched:
		return u.misplaced(off)
	case off >= 0 && !u.untouched:
		if err := u.appendBytes(ctx, off, src.head); err != nil {
			return err
		}
		if _, err := src.rest.Discard(len(src.head)); err != nil {
			return err
		}
		if _, err := src.rest.Peek(1); err != nil {
			return unlessEOF(err)
		}
	}
	body := &sentBody{inner: src.rest}
	if err := u.patch(ctx, -1, body, -1); err != nil {
		return err
	}
	return body.failure()
}

// appendBytes sends p, which must begin at off unless that is negative.
func (u *upload) appendBytes(ctx context.Context, off int64, p []byte) error {
	if len(p) > 0 {
		return u.patch(ctx, off, &sentBody{inner: bytes.NewReader(p)}, int64(len(p)))
	}
	return u.stands(ctx, off)
}

// stands proves that the session is there and, unless off is negative, at off.
func (u *upload) stands(ctx context.Context, off int64) error {
	if err := u.refresh(ctx); err != nil {
		return err
	}
	if off >= 0 && off != u.off {
		return u.misplaced(off)
	}
	return nil
}

func (u *upload) misplaced(off int64) error {
	return registry.Errorf(registry.RangeInvalid, u.repo, "the upload stands at byte %d, not %d", u.off, off)
}

// patch sends one chunk; length is -1 where it is not known.
func (u *upload) patch(ctx context.Context, off int64, body *sentBody, length int64) error {
	expected := int64(-1)
	if off >= 0 && length >= 0 {
		expected = off + length
	}
	resp, err := u.send(ctx, http.MethodPatch, u.location, off, body, length)
	if err != nil {
		return u.failed(ctx, err)
	}
	discard(resp)
	return u.moved(resp, expected)
}

// Commit sends what remains with the request that ends the session or, if it
// is long or breaks off, before it.
func (u *upload) Commit(ctx context.Context, off int64, r io.Reader, d oci.Digest) (oci.Descriptor, error) {
	var tail []byte
	if r != nil {
		src := u.registry.look(r)
		defer u.registry.release(src)
		if src.err == io.EOF {
			tail = src.head
		} else {
			if err := u.append(ctx, off, src); err != nil {
				return oci.Descriptor{}, err
			}
			off = u.off
		}
	}
	if !u.untouched && (off < 0 || off != u.off) && (len(tail) == 0 || off < 0) {
		if err := u.stands(ctx, off); err != nil {
			return oci.Descriptor{}, err
		}
	}
	if off < 0 {
		off = u.off
	}
	return u.finish(ctx, off, tail, d)
}

// finish sends the request that ends the session, with the last bytes.
func (u *upload) finish(ctx context.Context, off int64, tail []byte, d oci.Digest) (oci.Descriptor, error) {
	end := *u.location
	if end.RawQuery != "" {
		end.RawQuery += "&"
	}
	end.RawQuery += url.Values{"digest": {d.String()}}.Encode()
	var body *sentBody
	if len(tail) > 0 {
		body = &sentBody{inner: bytes.NewReader(tail)}
	}
	resp, err := u.send(ctx, http.MethodPut, &end, off, body, int64(len(tail)))
	if err != nil {
		return oci.Descriptor{}, u.failed(ctx, err)
	}
	discard(resp)
	claimed, err := oci.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
	if err == nil && claimed.Algorithm() == d.Algorithm() && claimed != d {
		return oci.Descriptor{}, faulty(u.repo, "it stored the blob %s as %s", d, claimed)
	}
	u.off = off + int64(len(tail))
	return oci.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: u.off}, nil
}

// send sends a request about the session, with the range of its body if both
// ends of it are known.
func (u *upload) send(ctx context.Context, method string, at *url.URL, off int64, body *sentBody, length int64) (*http.Response, error) {
	u.untouched = false
	header := http.Header{}
	req := request{method: method, repo: u.repo, url: at, header: header, length: length, absent: registry.UploadUnknown}
	if body != nil {
		defer body.Close()
		req.body = body
		header.Set("Content-Type", "application/octet-stream")
		if off >= 0 && length > 0 {
			header.Set("Content-Range", fmt.Sprintf("%d-%d", off, off+length-1))
		}
	}
	return u.registry.send(ctx, req)
}

func (u *upload) Cancel(ctx context.Context) error {
	resp, err := u.send(ctx, http.MethodDelete, u.location, -1, nil, 0)
	if err != nil {
		return err
	}
	discard(resp)
	return nil
}

// failed finds out where the session stands after err, also for a client that
// has gone.
func (u *upload) failed(ctx context.Context, err error) error {
	if registry.IsCode(err, registry.UploadUnknown) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshTime)
	defer cancel()
	// Without an answer the last known offset stands; err says what happened.
	_ = u.refresh(ctx)
	return err
}

// refresh asks upstream where the session stands.
func (u *upload) refresh(ctx context.Context) error {
	resp, err := u.send(ctx, http.MethodGet, u.location, -1, nil, 0)
	if err != nil {
		return err
	}
	discard(resp)
	return u.moved(resp, -1)
}

// moved takes over what an answer says of the session's place and offset.
func (u *upload) moved(resp *http.Response, expected int64) error {
	if resp.Header.Get("Location") != "" {
		location, err := u.registry.location(u.repo, resp)
		if err != nil {
			return err
		}
		u.location = location
	}
	off, err := offset(resp.Header, expected)
	if err != nil {
		return faulty(u.repo, "it does not tell where the upload stands: %v", err)
	}
	u.off = off
	if expected >= 0 && off != expected {
		return faulty(u.repo, "the upload stands at byte %d; %d were sent", off, expected)
	}
	return nil
}

// offset reads how many bytes a session has. "Range: 0-0" stands for one byte
// and, as a range cannot be empty, for none: it means what was expected, else
// none. Upload-Offset, where a registry sends it, is exact.
func offset(h http.Header, expected int64) (int64, error) {
	if exact := h.Get("Upload-Offset"); exact != "" {
		return parseOffset(exact)
	}
	value := h.Get("Range")
	if value == "" {
		return max(expected, 0), nil
	}
	_, last, ok := strings.Cut(strings.TrimPrefix(value, "bytes="), "-")
	if !ok {
		return 0, fmt.Errorf("malformed Range %.60q", value)
	}
	n, err := parseOffset(last)
	if err != nil {
		return 0, err
	}
	if n == 0 && expected != 1 {
		return 0, nil
	}
	return n + 1, nil
}

func parseOffset(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1<<62 {
		return 0, fmt.Errorf("offset is %.60q", s)
	}
	return n, nil
}
