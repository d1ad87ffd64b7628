package ocihttp

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

func (x *exchange) headManifest() error {
	desc, err := x.reg.Resolve(x.ctx, x.req.repo, x.req.ref)
	if err != nil {
		return err
	}
	if x.unchanged(desc.Digest) {
		return nil
	}
	x.set("Content-Type", desc.MediaType)
	x.respond(http.StatusOK, desc.Size)
	return nil
}

func (x *exchange) getManifest() error {
	m, err := x.reg.Manifest(x.ctx, x.req.repo, x.req.ref)
	if err != nil {
		return err
	}
	if x.unchanged(m.Digest) {
		return nil
	}
	return x.respondBytes(http.StatusOK, m.MediaType, m.Content)
}

// unchanged names the content and answers 304 if the client has it already.
func (x *exchange) unchanged(d oci.Digest) bool {
	x.set("Docker-Content-Digest", string(d))
	x.set("Etag", etag(d))
	if !noneMatch(x.r.Header, d) {
		return false
	}
	x.respond(http.StatusNotModified, 0)
	return true
}

func (x *exchange) headBlob() error {
	b, err := x.reg.Blob(x.ctx, x.req.repo, x.req.digest)
	if err != nil {
		return err
	}
	desc := b.Descriptor()
	if x.unchanged(desc.Digest) {
		return nil
	}
	x.set("Content-Type", "application/octet-stream")
	x.set("Accept-Ranges", "bytes")
	x.respond(http.StatusOK, desc.Size)
	return nil
}

func (x *exchange) getBlob() error {
	b, err := x.reg.Blob(x.ctx, x.req.repo, x.req.digest)
	if err != nil {
		return err
	}
	desc := b.Descriptor()
	if x.unchanged(desc.Digest) {
		return nil
	}
	part, status, err := x.part(desc)
	if err != nil {
		return err
	}
	if redirected, err := x.redirect(b, desc.Size); redirected || err != nil {
		return err
	}
	return x.stream(b, part, status)
}

// redirect sends the client to where the blob is, if it may go there. An empty
// blob is not worth the way: its bytes are known.
func (x *exchange) redirect(b registry.Blob, size int64) (bool, error) {
	if size == 0 || !x.h.Redirect(x.r) {
		return false, nil
	}
	location, err := b.URL(x.ctx, x.h.RedirectTTL)
	if registry.IsCode(err, registry.Unsupported) {
		return false, nil
	}
	delete(x.w.Header(), "Content-Range") // Range is for the target to answer
	if err != nil {
		return false, err
	}
	x.set("Location", location)
	x.set("Cache-Control", "no-store") // the address is a credential, and soon none
	x.respond(http.StatusTemporaryRedirect, 0)
	return true, nil
}

// part is what of a blob the client asks for, with the status of the answer.
func (x *exchange) part(desc oci.Descriptor) (span, int, error) {
	header := x.r.Header.Get("Range")
	if header == "" || !rangeApplies(x.r.Header, desc.Digest) {
		return span{0, desc.Size}, http.StatusOK, nil
	}
	part, partial, ok := parseRange(header, desc.Size)
	size := strconv.FormatInt(desc.Size, 10)
	if !ok {
		x.set("Content-Range", "bytes */"+size)
		return span{}, 0, refuse(http.StatusRequestedRangeNotSatisfiable, "SIZE_INVALID",
			"no such range in the %s bytes of this blob", size)
	}
	if !partial {
		return part, http.StatusOK, nil
	}
	x.set("Content-Range", fmt.Sprintf("bytes %d-%d/%s", part.off, part.last(), size))
	return part, http.StatusPartialContent, nil
}

// stream sends a part of a blob. The server's own ResponseWriter is the
// target: handed a file, it lets the kernel send it.
func (x *exchange) stream(b registry.Blob, part span, status int) error {
	var content io.ReadCloser = http.NoBody
	if part.n > 0 {
		var err error
		if content, err = b.Open(x.ctx, part.off, part.n); err != nil {
			delete(x.w.Header(), "Content-Range")
			return err
		}
	}
	defer content.Close()
	x.set("Content-Type", "application/octet-stream")
	x.set("Accept-Ranges", "bytes")
	x.respond(status, part.n)
	n, err := io.Copy(x.w, content)
	x.sent = n
	if err == nil && n != part.n {
		err = fmt.Errorf("blob %s: read %d bytes of %d; run the integrity check", x.req.digest, n, part.n)
	}
	return err
}
