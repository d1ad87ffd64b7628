package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// requestTimeout bounds one request, so that a server that hangs ends the run.
const requestTimeout = 5 * time.Minute

// client is one keep-alive connection. It writes requests from their parts,
// parses answers with the standard library and throws bodies away; without
// http.Client's goroutines and pools it costs a fraction of what a server
// spends on the same request. Not for concurrent use.
type client struct {
	addr    string
	conn    net.Conn
	in      *bufio.Reader
	out     net.Buffers
	head    []byte
	discard []byte
	unwatch func() bool
}

// dial connects; cancelling ctx breaks the connection off.
func dial(ctx context.Context, addr string) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{
		addr:    addr,
		conn:    conn,
		in:      bufio.NewReaderSize(conn, 16<<10),
		discard: make([]byte, 256<<10),
		unwatch: context.AfterFunc(ctx, func() { conn.Close() }),
	}, nil
}

func (c *client) close() {
	c.unwatch()
	c.conn.Close()
}

// request is a call and the answer it must get.
type request struct {
	method, path string
	contentType  string    // "" sends none
	blob         *blob     // body, or
	content      []byte    // body
	want         int       // status
	wantSize     int64     // Content-Length of the answer; 0 is not checked
	sink         io.Writer // receives the answer's body; nil throws it away
}

// do sends r and reads the whole answer.
func (c *client) do(r request) (http.Header, error) {
	header, err := c.roundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
	}
	return header, nil
}

func (c *client) roundTrip(r request) (http.Header, error) {
	if err := c.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return nil, err
	}
	if err := c.send(r); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.in, &http.Request{Method: r.method})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != r.want {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return nil, fmt.Errorf("status %s, not %d: %s", resp.Status, r.want, text)
	}
	n, err := c.drain(resp.Body, r.sink)
	if err != nil {
		return nil, err
	}
	if r.method == http.MethodHead {
		n = resp.ContentLength
	}
	if r.wantSize > 0 && n != r.wantSize {
		return nil, fmt.Errorf("answer has %d bytes, not %d", n, r.wantSize)
	}
	if resp.Close {
		return nil, fmt.Errorf("the server closes the connection after %s", resp.Status)
	}
	return resp.Header, nil
}

// send writes the request in one vectored write.
func (c *client) send(r request) error {
	length := int64(len(r.content))
	if r.blob != nil {
		length = r.blob.size
	}
	h := append(c.head[:0], r.method...)
	h = append(h, ' ')
	h = append(h, r.path...)
	h = append(h, " HTTP/1.1\r\nHost: "...)
	h = append(h, c.addr...)
	h = append(h, "\r\nAccept: "+manifestType+"\r\n"...)
	if r.contentType != "" {
		h = append(h, "Content-Type: "...)
		h = append(h, r.contentType...)
		h = append(h, "\r\n"...)
	}
	if r.method == http.MethodPost || r.method == http.MethodPut {
		h = append(h, "Content-Length: "...)
		h = strconv.AppendInt(h, length, 10)
		h = append(h, "\r\n"...)
	}
	h = append(h, "\r\n"...)
	c.head = h

	parts := append(c.out[:0], h)
	if r.blob != nil {
		parts = r.blob.appendTo(parts)
	} else if len(r.content) > 0 {
		parts = append(parts, r.content)
	}
	c.out = parts
	_, err := parts.WriteTo(c.conn)
	return err
}

func (c *client) drain(body io.Reader, sink io.Writer) (n int64, err error) {
	for {
		k, err := body.Read(c.discard)
		n += int64(k)
		if sink != nil {
			sink.Write(c.discard[:k])
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// pushBlob uploads b with POST and PUT, whether or not the server has it.
func (c *client) pushBlob(repo string, b *blob) error {
	header, err := c.do(request{method: http.MethodPost, path: "/v2/" + repo + "/blobs/uploads/", want: http.StatusAccepted})
	if err != nil {
		return err
	}
	path, err := commitPath(header.Get("Location"), b.digest)
	if err != nil {
		return err
	}
	_, err = c.do(request{method: http.MethodPut, path: path, contentType: "application/octet-stream", blob: b, want: http.StatusCreated})
	return err
}

// commitPath adds the digest to an upload's Location, which may be absolute.
func commitPath(location, digest string) (string, error) {
	u, err := url.Parse(location)
	if err != nil || !strings.HasPrefix(u.Path, "/") {
		return "", fmt.Errorf("upload has no usable Location: %q", location)
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += "digest=" + digest
	return u.RequestURI(), nil
}

// putManifest stores an image's manifest under ref, and under the tags too.
func (c *client) putManifest(repo, ref string, m image, tags ...string) error {
	path := manifestPath(repo, ref)
	for i, tag := range tags {
		path += string("?&"[min(i, 1)]) + "tag=" + tag
	}
	_, err := c.do(request{method: http.MethodPut, path: path, contentType: manifestType, content: m.content, want: http.StatusCreated})
	return err
}

// pushImage uploads everything.
func (c *client) pushImage(repo, ref string, m image) error {
	for i := range m.blobs {
		if err := c.pushBlob(repo, &m.blobs[i]); err != nil {
			return err
		}
	}
	return c.putManifest(repo, ref, m)
}

// verify downloads what is at path once and holds it against its digest.
func (c *client) verify(path, digest string) error {
	h := sha256.New()
	if _, err := c.do(request{method: http.MethodGet, path: path, want: http.StatusOK, sink: h}); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("GET %s: content has digest %s, not %s", path, got, digest)
	}
	return nil
}

func blobPath(repo, digest string) string  { return "/v2/" + repo + "/blobs/" + digest }
func manifestPath(repo, ref string) string { return "/v2/" + repo + "/manifests/" + ref }
