package virtual

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// maxDepth is how far indexes in indexes are brought.
const maxDepth = 4

// PutManifest pushes to the source that takes pushes. A client does not send what
// it is told that the repository has: what only another source has is brought.
func (v *Registry) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags ...string) (registry.PutResult, error) {
	return v.put(ctx, repo, m, maxDepth, tags...)
}

func (v *Registry) put(ctx context.Context, repo string, m registry.Manifest, depth int, tags ...string) (registry.PutResult, error) {
	s, name, err := v.writes(repo)
	if err != nil {
		return registry.PutResult{}, err
	}
	put, err := s.Registry.PutManifest(ctx, name, m, tags...)
	var lacks *registry.Error
	if len(v.sources) == 1 || depth == 0 || !registry.IsCode(err, registry.ManifestBlobUnknown) || !errors.As(err, &lacks) {
		return put, err
	}
	missing, _ := lacks.Detail.([]oci.Digest)
	for _, d := range missing {
		switch bringErr := v.bring(ctx, repo, m, d, depth-1); {
		case absent(bringErr):
			return put, err
		case bringErr != nil:
			return put, bringErr
		}
	}
	return s.Registry.PutManifest(ctx, name, m, tags...)
}

// bring copies what m names from the other sources to the one that takes pushes.
// Errors: *Unknown where none of them has it.
func (v *Registry) bring(ctx context.Context, repo string, m registry.Manifest, d oci.Digest, depth int) error {
	parsed, err := oci.ParseManifest(m.MediaType, m.Content)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(parsed.Manifests, func(child oci.Descriptor) bool { return child.Digest == d }) {
		return v.bringBlob(ctx, repo, d)
	}
	child, err := v.Manifest(ctx, repo, oci.DigestRef(d))
	if err == nil {
		_, err = v.put(ctx, repo, child, depth)
	}
	return err
}

// bringBlob mounts a blob, where the source that has it lies in the same store as
// the one that takes pushes, or copies it.
func (v *Registry) bringBlob(ctx context.Context, repo string, d oci.Digest) error {
	if _, err := v.Mount(ctx, repo, repo, d); err == nil {
		return nil
	}
	b, err := v.Blob(ctx, repo, d)
	if err != nil {
		return err
	}
	u, err := v.StartUpload(ctx, repo, registry.UploadOptions{Algorithm: d.Algorithm()})
	if err != nil {
		return err
	}
	if err := fill(ctx, u, b); err != nil {
		// What is left of it expires; err says what happened.
		_ = u.Cancel(context.WithoutCancel(ctx))
		return err
	}
	return nil
}

func fill(ctx context.Context, u registry.Upload, b registry.Blob) error {
	desc := b.Descriptor()
	content, err := b.Open(ctx, 0, desc.Size)
	if err != nil {
		return err
	}
	defer content.Close()
	_, err = u.Commit(ctx, 0, io.LimitReader(content, desc.Size), desc.Digest)
	return err
}

// Mount mounts within the source that takes pushes, and into it from others that
// lie in the same store. What cannot be read here is not mounted.
func (v *Registry) Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error) {
	s, name, err := v.writes(repo)
	if err != nil {
		return oci.Descriptor{}, err
	}
	if from == "" {
		return v.mountFromAny(ctx, repo, d)
	}
	rest, err := v.rest(from)
	if err != nil {
		return oci.Descriptor{}, registry.Errorf(registry.Unsupported, repo, "%s is kept in another registry; push the blob", from)
	}
	for i := range v.sources {
		source := &v.sources[i]
		there, err := source.at(rest)
		if err != nil {
			continue
		}
		if source != s {
			if _, err := source.Registry.Blob(ctx, there, d); err != nil {
				continue
			}
		}
		if desc, err := s.Registry.Mount(ctx, name, there, d); err == nil {
			return desc, nil
		}
	}
	return oci.Descriptor{}, &registry.Error{Code: registry.BlobUnknown, Repo: repo, Detail: map[string]string{"digest": d.String()}}
}

// mountFromAny mounts from the first holder: any repository of this registry, not
// of those behind it.
func (v *Registry) mountFromAny(ctx context.Context, repo string, d oci.Digest) (oci.Descriptor, error) {
	for from, err := range v.Holders(ctx, repo, d) {
		if err != nil {
			return oci.Descriptor{}, err
		}
		return v.Mount(ctx, repo, from, d)
	}
	return oci.Descriptor{}, &registry.Error{Code: registry.BlobUnknown, Repo: repo, Detail: map[string]string{"digest": d.String()}}
}

func (v *Registry) StartUpload(ctx context.Context, repo string, o registry.UploadOptions) (registry.Upload, error) {
	s, name, err := v.writes(repo)
	if err != nil {
		return nil, err
	}
	return s.Registry.StartUpload(ctx, name, o)
}

func (v *Registry) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	s, name, err := v.writes(repo)
	if err != nil {
		return nil, &registry.Error{Code: registry.UploadUnknown, Repo: repo, Err: err}
	}
	return s.Registry.ResumeUpload(ctx, name, id)
}
