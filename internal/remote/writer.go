package remote

import (
	"bytes"
	"context"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// tagsPerPut is how many tags one request carries; the distribution-spec asks
// registries to take at least as many.
const tagsPerPut = 10

// PutManifest pushes by digest, with the tags as parameters. Over ten tags, or
// with an upstream that ignores the parameters, take more requests than one:
// then it is not all or nothing.
func (r *Registry) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags ...string) (registry.PutResult, error) {
	if len(m.Content) > oci.MaxManifest {
		return registry.PutResult{}, registry.Errorf(registry.ManifestTooLarge, repo, "at most %d bytes are accepted", oci.MaxManifest)
	}
	if m.Digest == "" {
		m.Digest = oci.SHA256.FromBytes(m.Content)
	}
	if !m.Digest.Verify(m.Content) {
		return registry.PutResult{}, registry.Errorf(registry.DigestInvalid, repo, "the content of the manifest has not the digest %s", m.Digest)
	}
	result := registry.PutResult{Descriptor: m.Descriptor()}
	result.Descriptor.MediaType = declaredType(m)
	for first := true; first || len(tags) > 0; first = false {
		n := min(tagsPerPut, len(tags))
		header, err := r.putManifest(ctx, repo, m, m.Digest.String(), url.Values{"tag": tags[:n]})
		if err != nil {
			return registry.PutResult{}, err
		}
		if subject, err := oci.ParseDigest(header.Get("OCI-Subject")); err == nil {
			result.Subject = subject
		}
		if err := r.putTags(ctx, repo, m, untagged(tags[:n], header)); err != nil {
			return registry.PutResult{}, err
		}
		tags = tags[n:]
	}
	return result, nil
}

// putTags points tags at m one by one, for an upstream without tag parameters.
// It then chooses the digest itself, which is sha256.
func (r *Registry) putTags(ctx context.Context, repo string, m registry.Manifest, tags []string) error {
	if len(tags) > 0 && m.Digest.Algorithm() != oci.SHA256 {
		return registry.Errorf(registry.Unsupported, repo, "the upstream registry cannot tag a manifest by its %s digest", m.Digest.Algorithm())
	}
	for _, tag := range tags {
		if _, err := r.putManifest(ctx, repo, m, tag, nil); err != nil {
			return err
		}
	}
	return nil
}

// putManifest is one PUT; it returns the headers of the answer.
func (r *Registry) putManifest(ctx context.Context, repo string, m registry.Manifest, ref string, query url.Values) (http.Header, error) {
	header := http.Header{}
	if m.MediaType != "" {
		header.Set("Content-Type", m.MediaType)
	}
	resp, err := r.send(ctx, request{
		method: http.MethodPut, repo: repo, url: r.at(repo, "/manifests/"+ref, query), header: header,
		body: bytes.NewReader(m.Content), length: int64(len(m.Content)), absent: registry.NameUnknown,
	})
	if err != nil {
		return nil, err
	}
	discard(resp)
	claimed, err := oci.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
	if err == nil && !claimed.Verify(m.Content) {
		return nil, faulty(repo, "it stored the manifest %s as %s", m.Digest, claimed)
	}
	return resp.Header, nil
}

// declaredType is the media type of m without parameters.
func declaredType(m registry.Manifest) string {
	if t, _, err := mime.ParseMediaType(m.MediaType); err == nil {
		return t
	}
	if parsed, err := oci.ParseManifest("", m.Content); err == nil {
		return parsed.MediaType
	}
	return m.MediaType
}

// untagged are the tags that the OCI-Tag headers of an answer do not confirm.
func untagged(tags []string, header http.Header) []string {
	var confirmed []string
	for _, line := range header.Values("OCI-Tag") {
		for tag := range strings.SplitSeq(line, ",") {
			confirmed = append(confirmed, strings.TrimSpace(tag))
		}
	}
	return slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return slices.Contains(confirmed, tag) })
}

// Mount asks upstream to mount. Where it opens an upload session instead, that
// is cancelled and the blob is unknown.
func (r *Registry) Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error) {
	query := url.Values{"mount": {d.String()}}
	if from != "" {
		query.Set("from", from)
	}
	resp, err := r.send(ctx, r.uploadsRequest(repo, query))
	if err != nil {
		return oci.Descriptor{}, err
	}
	discard(resp)
	if resp.StatusCode != http.StatusCreated {
		if u, err := r.opened(repo, resp); err == nil {
			// A session that stays is the upstream's to expire.
			_ = u.Cancel(ctx)
		}
		return oci.Descriptor{}, registry.Errorf(registry.BlobUnknown, repo, "the upstream registry did not mount %s; push the blob", d)
	}
	b, err := r.Blob(ctx, repo, d)
	if err != nil {
		return oci.Descriptor{}, err
	}
	return b.Descriptor(), nil
}

func (r *Registry) StartUpload(ctx context.Context, repo string, o registry.UploadOptions) (registry.Upload, error) {
	query := url.Values{}
	if o.Algorithm != "" {
		query.Set("digest-algorithm", string(o.Algorithm))
	}
	resp, err := r.send(ctx, r.uploadsRequest(repo, query))
	if err != nil {
		return nil, err
	}
	discard(resp)
	u, err := r.opened(repo, resp)
	if err != nil {
		return nil, err
	}
	u.untouched = true
	return u, nil
}

// uploadsRequest is a POST that opens a session or mounts.
func (r *Registry) uploadsRequest(repo string, query url.Values) request {
	return request{method: http.MethodPost, repo: repo, url: r.at(repo, "/blobs/uploads/", query), absent: registry.NameUnknown}
}

func (r *Registry) opened(repo string, resp *http.Response) (*upload, error) {
	location, err := r.location(repo, resp)
	if err != nil {
		return nil, err
	}
	return &upload{registry: r, repo: repo, location: location}, nil
}

// location is where an answer says that a session is.
func (r *Registry) location(repo string, resp *http.Response) (*url.URL, error) {
	header := resp.Header.Get("Location")
	u, err := resp.Request.URL.Parse(header)
	if header == "" || err != nil {
		return nil, faulty(repo, "it opened an upload session without a valid Location")
	}
	own, ok := r.back(u)
	if !ok {
		return nil, faulty(repo, "its upload session lies elsewhere, at %.100q; that is not followed", u.Host)
	}
	return own, nil
}

// ResumeUpload asks upstream how far the session has come.
func (r *Registry) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	location, ok := r.sessionLocation(repo, id)
	if !ok {
		return nil, &registry.Error{Code: registry.UploadUnknown, Repo: repo}
	}
	u := &upload{registry: r, repo: repo, location: location}
	if err := u.refresh(ctx); err != nil {
		return nil, err
	}
	return u, nil
}
