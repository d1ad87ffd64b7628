package hosted

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

func (r *Registry) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags ...string) (registry.PutResult, error) {
	if len(m.Content) > oci.MaxManifest {
		return registry.PutResult{}, registry.Errorf(registry.ManifestTooLarge, repo,
			"%d bytes; at most %d are allowed", len(m.Content), oci.MaxManifest)
	}
	d, err := manifestDigest(repo, m)
	if err != nil {
		return registry.PutResult{}, err
	}
	parsed, err := oci.ParseManifest(m.MediaType, m.Content)
	if err != nil {
		return registry.PutResult{}, &registry.Error{Code: registry.ManifestInvalid, Repo: repo, Detail: err.Error()}
	}
	err = r.db.PutManifest(ctx, meta.PutManifest{
		Repository: repo, Digest: d, Content: m.Content, Parsed: parsed, Tags: tags, AllowMissing: r.o.Sparse(repo),
	})
	if err != nil {
		return registry.PutResult{}, coded(err, repo, registry.Internal, nil)
	}
	res := registry.PutResult{Descriptor: oci.Descriptor{MediaType: parsed.MediaType, Digest: d, Size: int64(len(m.Content))}}
	if parsed.Subject != nil {
		res.Subject = parsed.Subject.Digest
	}
	return res, nil
}

// manifestDigest computes the digest and holds it against the announced one.
func manifestDigest(repo string, m registry.Manifest) (oci.Digest, error) {
	if m.Digest == "" {
		return oci.SHA256.FromBytes(m.Content), nil
	}
	got := m.Digest.Algorithm().FromBytes(m.Content)
	if got != m.Digest {
		return "", registry.Errorf(registry.DigestInvalid, repo, "the content has digest %s, not %s", got, m.Digest)
	}
	return got, nil
}

func (r *Registry) Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error) {
	size, err := r.db.Mount(ctx, repo, from, d)
	if err != nil {
		return oci.Descriptor{}, coded(err, repo, registry.BlobUnknown, map[string]string{"digest": d.String(), "from": from})
	}
	return oci.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: size}, nil
}

func (r *Registry) StartUpload(ctx context.Context, repo string, o registry.UploadOptions) (registry.Upload, error) {
	if o.Algorithm == "" {
		o.Algorithm = oci.SHA256
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	state, err := r.blobs.Create(ctx, id.String())
	if err != nil {
		return nil, coded(err, repo, registry.Internal, nil)
	}
	hash, err := o.Algorithm.New().MarshalBinary()
	if err != nil {
		return nil, err
	}
	u := meta.Upload{ID: id.String(), Repository: repo, Algorithm: o.Algorithm, Hash: hash}
	setState(&u, state)
	if err := r.db.CreateUpload(ctx, u); err != nil {
		return nil, coded(err, repo, registry.Internal, nil)
	}
	return &upload{r: r, row: u}, nil
}

func (r *Registry) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	row, err := r.db.Upload(ctx, repo, id)
	if err != nil {
		return nil, coded(err, repo, registry.UploadUnknown, map[string]string{"upload": id})
	}
	return &upload{r: r, row: row}, nil
}

// setState and state carry the blob store's progress through the row.
func setState(u *meta.Upload, s blob.State) { u.Size, u.State = s.Size, s.Opaque }
func state(u meta.Upload) blob.State        { return blob.State{Size: u.Size, Opaque: u.State} }

// hashOf takes up a session's hash where its bytes end.
func hashOf(u meta.Upload) (oci.Hash, error) {
	h := u.Algorithm.New()
	if err := h.UnmarshalBinary(u.Hash); err != nil {
		return nil, fmt.Errorf("hash state of upload %s: %w", u.ID, err)
	}
	return h, nil
}
