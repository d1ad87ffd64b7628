package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// PutManifest takes what says something about a manifest, which may be the
// origin's: a manifest with a subject and without a tag, and what cosign keeps
// under its tags. From then on such a tag stands here for what was pushed: cosign
// adds to the signatures that it finds, so none is lost. What the manifest names
// and the origin has is fetched, for the client was told that it is there.
func (p *Registry) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags ...string) (registry.PutResult, error) {
	here, there, err := p.pushing(repo)
	if err != nil {
		return registry.PutResult{}, err
	}
	parsed, err := oci.ParseManifest(m.MediaType, m.Content)
	if err != nil {
		return registry.PutResult{}, &registry.Error{Code: registry.ManifestInvalid, Repo: here, Detail: err.Error()}
	}
	if err := p.mayPush(here, parsed, tags); err != nil {
		return registry.PutResult{}, err
	}
	put := func(ctx context.Context) (registry.PutResult, error) {
		return p.putOwn(ctx, here, there, m, parsed, tags)
	}
	if len(tags) == 0 {
		return put(ctx)
	}
	return p.putTagged(ctx, tagName{here, there, tags[0]}, m, put)
}

// pushing finds the names of a repository that may be pushed to.
func (p *Registry) pushing(repo string) (here, there string, err error) {
	here, there, err = p.names(repo)
	if err == nil && !p.o.LocalReferrers {
		err = registry.Errorf(registry.Denied, here, "%s is a cache of another registry, and nothing can be pushed to it; "+
			"push to a project of this registry's own, or to a virtual repository over both", p.o.Name)
	}
	return here, there, err
}

// mayPush says why a manifest may not be pushed.
func (p *Registry) mayPush(here string, parsed *oci.Manifest, tags []string) error {
	if len(tags) == 0 && parsed.Subject != nil {
		return nil
	}
	if len(tags) == 1 {
		_, cosign, companion := companionOf(tags[0])
		switch {
		case cosign:
			return nil
		case companion:
			return registry.Errorf(registry.Denied, here, "%s need not be kept by clients: this registry lists referrers; push them by their digest, without a tag", tags[0])
		}
	}
	return registry.Errorf(registry.Denied, here, "%s is a cache of another registry: only what has a subject, such as signatures and SBOMs, can be pushed to it, "+
		"without a tag; push images to a project of this registry's own, or to a virtual repository over both", p.o.Name)
}

// putTagged stores a manifest while nobody asks the origin for its tag: the answer
// must not take the place of what is pushed.
func (p *Registry) putTagged(ctx context.Context, t tagName, m registry.Manifest, put func(context.Context) (registry.PutResult, error)) (registry.PutResult, error) {
	for {
		var done atomic.Pointer[registry.PutResult] // the work may outlast ctx
		_, joined, err := share(ctx, p, "tag "+t.String(),
			func(context.Context) (a answer, ok bool, err error) { return a, false, nil },
			func(ctx context.Context) (a answer, err error) {
				result, err := put(ctx)
				if err != nil {
					return a, err
				}
				done.Store(&result)
				m := m
				m.MediaType, m.Digest = result.Descriptor.MediaType, result.Descriptor.Digest
				return hit(m, registry.Freshness{Age: -1, Detail: "local"}), nil
			})
		switch {
		case joined:
		case err != nil:
			return registry.PutResult{}, err
		default:
			return *done.Load(), nil
		}
		if ctx.Err() != nil {
			return registry.PutResult{}, ctx.Err()
		}
	}
}

// putOwn stores a manifest that was pushed here. Eviction may take what came from
// the origin until it is noted that it is our own: then it is stored once more.
func (p *Registry) putOwn(ctx context.Context, here, there string, m registry.Manifest, parsed *oci.Manifest, tags []string) (result registry.PutResult, err error) {
	for kept := false; !kept; {
		if result, err = p.putWhole(ctx, here, there, m, parsed, tags); err != nil {
			return registry.PutResult{}, err
		}
		// Whatever the origin had, it is our own from now on.
		if err := p.o.State.OwnProxyManifest(ctx, here, result.Descriptor.Digest); err != nil {
			return registry.PutResult{}, coded(err, here)
		}
		_, err := p.o.Own.Resolve(ctx, here, oci.DigestRef(result.Descriptor.Digest))
		if kept = err == nil; !kept && !notThere(err) {
			return registry.PutResult{}, err
		}
	}
	p.pushed(ctx, here, result, tags)
	return result, nil
}

// putWhole stores a manifest with what it names.
func (p *Registry) putWhole(ctx context.Context, here, there string, m registry.Manifest, parsed *oci.Manifest, tags []string) (registry.PutResult, error) {
	result, err := p.o.Own.PutManifest(ctx, here, m, tags...)
	if !registry.IsCode(err, registry.ManifestBlobUnknown) {
		return result, err
	}
	if err := p.fetchNamed(ctx, here, there, parsed); err != nil {
		return registry.PutResult{}, err
	}
	return p.o.Own.PutManifest(ctx, here, m, tags...)
}

// fetchNamed brings into the cache what a manifest names and the origin has; what
// it does not have is for the store to refuse. That a client names a blob proves
// nothing of it: the origin is asked.
func (p *Registry) fetchNamed(ctx context.Context, here, there string, parsed *oci.Manifest) error {
	ctx, _ = registry.WithFreshness(ctx)
	blobs, children := parsed.Blobs, parsed.Manifests
	return fewAtOnce(ctx, len(blobs)+len(children), func(ctx context.Context, i int) (err error) {
		if i < len(blobs) {
			err = p.fetchBlob(ctx, here, there, blobs[i].Digest)
		} else {
			_, err = p.manifest(ctx, here, there, oci.DigestRef(children[i-len(blobs)].Digest))
		}
		if registry.IsCode(err, registry.BlobUnknown) || notThere(err) {
			return nil
		}
		return err
	})
}

// pushed forgets what the origin said of a manifest and its tags: it has no say in
// them any more. It comes after the push, and costs at most a wrong answer for as
// long as absence is believed.
func (p *Registry) pushed(ctx context.Context, here string, result registry.PutResult, tags []string) {
	ctx = p.writing(ctx)
	d := result.Descriptor.Digest
	err := p.o.State.ForgetProxyTags(ctx, p.o.Name, here, string(d))
	for _, tag := range tags {
		err = errors.Join(err, p.o.State.SaveProxyTag(ctx, here, tag, meta.ProxyTag{}))
	}
	if err != nil {
		p.o.Log.Warn("what an upstream said of a manifest could not be forgotten after a push", "repo", here, "digest", d, "error", err)
	}
	if result.Subject != "" {
		p.keepSubject(here, result.Subject)
	}
}

// Mount takes blobs of the origin's other repositories alone, as far as they are
// here: others are not known, and a client sends the bytes.
func (p *Registry) Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error) {
	here, _, err := p.pushing(repo)
	if err != nil {
		return oci.Descriptor{}, err
	}
	source, _, err := p.names(from)
	if err != nil {
		return oci.Descriptor{}, &registry.Error{Code: registry.BlobUnknown, Repo: here,
			Detail: fmt.Sprintf("blobs are mounted from repositories of %s alone; send the bytes", p.o.Name)}
	}
	return p.o.Own.Mount(ctx, here, source, d)
}

func (p *Registry) StartUpload(ctx context.Context, repo string, o registry.UploadOptions) (registry.Upload, error) {
	here, _, err := p.pushing(repo)
	if err != nil {
		return nil, err
	}
	return p.o.Own.StartUpload(ctx, here, o)
}

func (p *Registry) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	here, _, err := p.pushing(repo)
	if err != nil {
		return nil, err
	}
	return p.o.Own.ResumeUpload(ctx, here, id)
}

// DeleteTag takes a tag out of the cache. What the origin has may come back with
// the next pull.
func (p *Registry) DeleteTag(ctx context.Context, repo, tag string) error {
	here, _, err := p.names(repo)
	if err != nil {
		return err
	}
	err = p.cache.DeleteTag(ctx, here, tag)
	if err == nil || notThere(err) {
		err = errors.Join(err, coded(p.o.State.ForgetProxyTags(ctx, p.o.Name, here, tag), here))
	}
	return err
}

// DeleteManifest takes a manifest out of the cache, with its tags. The list of its
// referrers is asked for again, and those that were pushed here go as those of any
// manifest that is gone.
func (p *Registry) DeleteManifest(ctx context.Context, repo string, d oci.Digest) error {
	here, _, err := p.names(repo)
	if err != nil {
		return err
	}
	if err := p.cache.DeleteManifest(ctx, here, d); err != nil {
		return err
	}
	return coded(p.o.State.AgeProxyReferrers(ctx, p.o.Name, here, d, time.UnixMilli(0)), here)
}

// DeleteBlob takes a blob out of a repository of the cache.
func (p *Registry) DeleteBlob(ctx context.Context, repo string, d oci.Digest) error {
	here, _, err := p.names(repo)
	if err != nil {
		return err
	}
	return p.cache.DeleteBlob(ctx, here, d)
}
