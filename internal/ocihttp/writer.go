package ocihttp

import (
	"bytes"
	"io"
	"net/http"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

func (x *exchange) putManifest() error {
	tags, err := x.pushTags()
	if err != nil {
		return err
	}
	content, err := x.admittedManifest()
	if err != nil {
		return err
	}
	m := registry.Manifest{
		MediaType: x.r.Header.Get("Content-Type"), Digest: x.req.ref.Digest, Content: content,
	}
	result, err := x.reg.PutManifest(x.ctx, x.req.repo, m, tags...)
	if err != nil {
		return err
	}
	d := string(result.Descriptor.Digest)
	x.set("Location", "/v2/"+x.req.repo+"/manifests/"+d)
	x.set("Docker-Content-Digest", d)
	if result.Subject != "" {
		x.set("Oci-Subject", string(result.Subject))
	}
	if x.req.ref.IsDigest() && len(tags) > 0 {
		x.w.Header()["Oci-Tag"] = tags
	}
	x.respond(http.StatusCreated, 0)
	return nil
}

// admittedManifest is the body, or nothing where the caller may not push: the
// registry then says why.
func (x *exchange) admittedManifest() ([]byte, error) {
	if x.h.MayPush != nil {
		if may, err := x.h.MayPush(x.ctx, x.id, x.req.repo); err != nil || !may {
			return nil, err
		}
	}
	return x.readManifest()
}

// pushTags are the tags to point at the manifest: that of the path, or those
// of the tag parameters beside a digest. A tag that stands twice counts once.
func (x *exchange) pushTags() ([]string, error) {
	named := x.req.query["tag"]
	if !x.req.ref.IsDigest() {
		if len(named) > 0 {
			return nil, refuse(http.StatusBadRequest, "UNSUPPORTED", "tag parameters go with a push by digest; this path names a tag")
		}
		return []string{x.req.ref.Tag}, nil
	}
	if len(named) > maxTags {
		return nil, refuse(http.StatusRequestURITooLong, "UNSUPPORTED", "%d tag parameters; at most %d are allowed in one request", len(named), maxTags)
	}
	tags := make([]string, 0, len(named))
	seen := make(map[string]bool, len(named))
	for _, tag := range named {
		if err := oci.CheckTag(tag); err != nil {
			return nil, err
		}
		if !seen[tag] {
			seen[tag] = true
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

// readManifest reads the body within the limit. Memory grows with what has
// come, not with what was announced.
func (x *exchange) readManifest() ([]byte, error) {
	tooLarge := registry.Errorf(registry.ManifestTooLarge, x.req.repo, "at most %d bytes are accepted", oci.MaxManifest)
	if x.r.ContentLength > oci.MaxManifest {
		return nil, tooLarge
	}
	if x.body == nil {
		return nil, registry.Errorf(registry.ManifestInvalid, x.req.repo, "the body is empty; send the manifest in it")
	}
	var buf bytes.Buffer
	buf.Grow(int(min(max(x.r.ContentLength, 0), 16<<10)) + bytes.MinRead)
	if _, err := buf.ReadFrom(io.LimitReader(x.body, oci.MaxManifest+1)); err != nil {
		return nil, x.blame(err)
	}
	if buf.Len() > oci.MaxManifest {
		return nil, tooLarge
	}
	return buf.Bytes(), nil
}
