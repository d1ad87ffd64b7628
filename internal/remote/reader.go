package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// manifestTypes is the Accept header of requests for manifests.
var manifestTypes = strings.Join([]string{oci.MediaTypeImage, oci.MediaTypeIndex, oci.MediaTypeDockerImage, oci.MediaTypeDockerList}, ", ")

// Resolve asks with HEAD. Where that does not tell all, as an error without a
// body cannot, the manifest itself is asked for; not so by a frugal client,
// which believes what little it is told.
func (r *Registry) Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error) {
	resp, err := r.send(ctx, r.manifestRequest(http.MethodHead, repo, ref))
	switch {
	case err == nil:
		discard(resp)
		if d, ok := headDescriptor(resp, ref); ok {
			return d, nil
		}
	case !r.inconclusive(err, registry.ManifestUnknown):
		return oci.Descriptor{}, err
	}
	m, err := r.Manifest(ctx, repo, ref)
	return m.Descriptor(), err
}

// inconclusive reports whether the answer to a HEAD calls for a GET. Addresses of
// storage are often made for that alone.
func (r *Registry) inconclusive(err error, absent registry.Code) bool {
	return registry.IsCode(err, registry.Unsupported) || errors.Is(err, errStorage) || registry.IsCode(err, absent) && !r.o.Frugal
}

// headDescriptor is the descriptor in the headers of an answer, if it is whole.
func headDescriptor(resp *http.Response, ref oci.Ref) (oci.Descriptor, bool) {
	claimed, err := oci.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
	if ref.IsDigest() {
		if err == nil && claimed.Algorithm() == ref.Digest.Algorithm() && claimed != ref.Digest {
			return oci.Descriptor{}, false
		}
		claimed, err = ref.Digest, nil
	}
	d := oci.Descriptor{MediaType: mediaType(resp), Digest: claimed, Size: resp.ContentLength}
	return d, err == nil && d.Size > 0 && d.Size <= oci.MaxManifest && d.MediaType != ""
}

// Manifest gets a manifest and holds it against every digest at hand: the one
// that was asked for and the one that the answer claims.
func (r *Registry) Manifest(ctx context.Context, repo string, ref oci.Ref) (registry.Manifest, error) {
	resp, err := r.send(ctx, r.manifestRequest(http.MethodGet, repo, ref))
	if err != nil {
		return registry.Manifest{}, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, oci.MaxManifest+1))
	if err != nil {
		return registry.Manifest{}, broken(repo, err)
	}
	if len(content) > oci.MaxManifest {
		return registry.Manifest{}, faulty(repo, "its manifest %s has more than %d bytes", ref, oci.MaxManifest)
	}
	m := registry.Manifest{MediaType: mediaType(resp), Digest: ref.Digest, Content: content}
	if claimed, err := oci.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil {
		if !claimed.Verify(content) {
			return registry.Manifest{}, faulty(repo, "the content of manifest %s has not the digest %s that its header claims", ref, claimed)
		}
		if m.Digest == "" {
			m.Digest = claimed
		}
	}
	if m.Digest == "" {
		m.Digest = oci.SHA256.FromBytes(content)
	}
	if !m.Digest.Verify(content) {
		return registry.Manifest{}, faulty(repo, "the content it sent for manifest %s has another digest", m.Digest)
	}
	if m.MediaType == "" {
		if parsed, err := oci.ParseManifest("", content); err == nil {
			m.MediaType = parsed.MediaType
		}
	}
	return m, nil
}

func (r *Registry) manifestRequest(method, repo string, ref oci.Ref) request {
	return request{
		method: method, repo: repo, url: r.at(repo, "/manifests/"+ref.String(), nil),
		header: http.Header{"Accept": {manifestTypes}}, absent: registry.ManifestUnknown,
	}
}

// mediaType of an answer without parameters; "" where it has none.
func mediaType(resp *http.Response) string {
	t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// Blob asks with HEAD for the size, and with GET where that tells too little.
func (r *Registry) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	req := request{method: http.MethodHead, repo: repo, url: r.at(repo, "/blobs/"+d.String(), nil), absent: registry.BlobUnknown}
	resp, err := r.send(ctx, req)
	if r.inconclusive(err, registry.BlobUnknown) || err == nil && resp.ContentLength < 0 {
		if err == nil {
			discard(resp)
		}
		req.method = http.MethodGet
		resp, err = r.send(ctx, req)
	}
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	if resp.ContentLength < 0 {
		return nil, faulty(repo, "it does not tell the size of blob %s", d)
	}
	return r.KnownBlob(repo, oci.Descriptor{Digest: d, Size: resp.ContentLength}), nil
}

// KnownBlob is a blob whose size is known from elsewhere, such as a manifest
// that names it. Whether it is there shows when it is opened.
func (r *Registry) KnownBlob(repo string, d oci.Descriptor) registry.Blob {
	return &blob{registry: r, repo: repo, desc: oci.Descriptor{MediaType: "application/octet-stream", Digest: d.Digest, Size: d.Size}}
}

// blob is a blob that upstream has said to have.
type blob struct {
	registry *Registry
	repo     string
	desc     oci.Descriptor
}

func (b *blob) Descriptor() oci.Descriptor { return b.desc }

// URL is Unsupported: an upstream's temporary address is not ours to give.
func (b *blob) URL(context.Context, time.Duration) (string, error) {
	return "", registry.Errorf(registry.Unsupported, b.repo, "content of the upstream registry is passed through; read it here")
}

// Open reads from upstream. Where the whole blob is read, the last byte is
// given out only if the digest is right, unless the caller sees to that.
func (b *blob) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if n == 0 {
		return b.verified(http.NoBody, off, 0)
	}
	req := request{method: http.MethodGet, repo: b.repo, absent: registry.BlobUnknown,
		url: b.registry.at(b.repo, "/blobs/"+b.desc.Digest.String(), nil)}
	part := off > 0 || n < b.desc.Size
	if part {
		req.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, off+n-1)}}
	}
	resp, err := b.registry.send(ctx, req)
	if registry.IsCode(err, registry.RangeInvalid) {
		return nil, faulty(b.repo, "blob %s has not the %d bytes that it should have", b.desc.Digest, b.desc.Size)
	}
	if err != nil {
		return nil, err
	}
	if err := b.seek(resp, off, n); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return b.verified(resp.Body, off, n)
}

// seek sees to it that the body stands at off, also if upstream ignored Range.
func (b *blob) seek(resp *http.Response, off, n int64) error {
	if resp.StatusCode == http.StatusPartialContent {
		want := fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, b.desc.Size)
		if got := resp.Header.Get("Content-Range"); got != want && got != fmt.Sprintf("bytes %d-%d/*", off, off+n-1) {
			return faulty(b.repo, "asked for %q of blob %s it sent %.60q", want, b.desc.Digest, got)
		}
		return nil
	}
	if resp.ContentLength >= 0 && resp.ContentLength != b.desc.Size {
		return faulty(b.repo, "blob %s has %d bytes, not %d", b.desc.Digest, resp.ContentLength, b.desc.Size)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, off); err != nil {
		return broken(b.repo, err)
	}
	return nil
}

func (b *blob) verified(body io.ReadCloser, off, n int64) (io.ReadCloser, error) {
	v := &verifiedReader{ReadCloser: body, blob: b, rest: n}
	if off == 0 && n == b.desc.Size && !b.registry.o.Unverified {
		v.hash = b.desc.Digest.Algorithm().New()
		if n == 0 {
			return v, v.verify()
		}
	}
	return v, nil
}

// verifiedReader gives out rest bytes. With a hash, the read that reaches the
// end fails and gives out nothing unless the digest is right: who has all
// bytes has the right ones.
type verifiedReader struct {
	io.ReadCloser
	blob *blob
	rest int64
	hash oci.Hash // nil: a part of the blob, which cannot be verified
	err  error
}

func (v *verifiedReader) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if v.rest == 0 {
		return 0, io.EOF
	}
	n, err := v.ReadCloser.Read(p[:min(int64(len(p)), v.rest)])
	v.rest -= int64(n)
	if v.hash != nil {
		v.hash.Write(p[:n])
	}
	switch {
	case v.rest == 0:
		if v.err = v.verify(); v.err != nil {
			return 0, v.err
		}
		return n, nil
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
		fallthrough
	case err != nil:
		v.err = broken(v.blob.repo, err)
	}
	return n, v.err
}

func (v *verifiedReader) verify() error {
	if d := v.blob.desc.Digest; v.hash != nil && d.Algorithm().FromHash(v.hash) != d {
		return faulty(v.blob.repo, "the content it sent for blob %s has another digest", d)
	}
	return nil
}
