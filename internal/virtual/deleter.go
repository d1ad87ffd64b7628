package virtual

import (
	"context"

	"github.com/berth-registry/berth/internal/oci"
)

// What is deleted goes from the source that takes pushes. Another that has it too
// shows it from then on.

func (v *Registry) DeleteTag(ctx context.Context, repo, tag string) error {
	s, name, err := v.writes(repo)
	if err != nil {
		return err
	}
	return s.Registry.DeleteTag(ctx, name, tag)
}

func (v *Registry) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	s, name, err := v.writes(repo)
	if err != nil {
		return err
	}
	return s.Registry.DeleteManifest(ctx, name, d)
}

func (v *Registry) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	s, name, err := v.writes(repo)
	if err != nil {
		return err
	}
	return s.Registry.DeleteBlob(ctx, name, d)
}
