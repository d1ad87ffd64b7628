package proxy

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// BlobKnower is an origin that need not be asked for a blob before it is opened,
// when a manifest has told its size. *upstream.Registry is one.
type BlobKnower interface {
	// KnownBlob is a blob that a manifest of repo describes. Nothing is asked before
	// Open, whose errors are those of Blob too; Faulty: it has another size.
	KnownBlob(repo string, d oci.Descriptor) registry.Blob
}

// Blob finds a blob in the cache, or else what is known of it. Nothing is fetched
// before it is opened.
func (p *Registry) Blob(ctx context.Context, repo string, d oci.Digest) (registry.Blob, error) {
	here, there, err := p.names(repo)
	if err != nil {
		p.o.Observe(Event{Kind: "blob", Result: "negative"})
		return nil, err
	}
	b, err := p.blob(ctx, here, there, d)
	result := "hit"
	switch w, missing := b.(*wanted); {
	case noBlob(err):
		result = "negative"
		noteFailure(ctx, err)
	case err != nil:
		result = "error"
		noteFailure(ctx, err)
	case missing:
		result = "miss"
		registry.NoteFreshness(ctx, registry.Freshness{Forward: "uri-miss", Shared: w.shared, Age: -1})
	default:
		registry.NoteFreshness(ctx, registry.Freshness{Hit: true, Age: -1})
	}
	p.o.Observe(Event{Kind: "blob", Result: result})
	return b, err
}

func noteFailure(ctx context.Context, err error) {
	registry.NoteFreshness(ctx, registry.Freshness{Forward: "uri-miss", Status: statusOf(err), Detail: detailOf(err), Age: -1})
}

// blob is one of the cache, or a *wanted.
func (p *Registry) blob(ctx context.Context, here, there string, d oci.Digest) (registry.Blob, error) {
	b, err := p.cache.Blob(ctx, here, d)
	if !noBlob(err) {
		return b, err
	}
	w, err := p.want(ctx, here, there, d)
	if err != nil {
		return nil, err
	}
	b, err = p.linked(ctx, here, d)
	if b != nil || err != nil {
		return b, err
	}
	return w, nil
}

// want proves that the origin has a blob in a repository and finds its size.
func (p *Registry) want(ctx context.Context, here, there string, d oci.Digest) (*wanted, error) {
	w := &wanted{p: p, here: here, there: there, desc: oci.Descriptor{MediaType: "application/octet-stream", Digest: d}}
	var known bool
	if w.desc.Size, known = p.flights.size(here, d); known {
		w.shared = true
	} else if w.desc.Size, known = p.sizes.get(here, d); !known {
		var err error
		if w.from, w.shared, err = p.ask(ctx, here, there, d); err != nil {
			return nil, err
		}
		w.desc.Size = w.from.Descriptor().Size
		p.sizes.add(here, d, w.desc.Size)
	}
	if w.desc.Size < 0 || w.desc.Size == 0 && !d.Verify(nil) { // nobody would open it and find out
		p.sizes.drop(here, d)
		return nil, registry.Errorf(registry.Faulty, here, "the upstream registry says that blob %s has %d bytes, which cannot be; try again later", d, w.desc.Size)
	}
	return w, nil
}

// ask asks the origin for a blob, unless it has said of late that it has none.
func (p *Registry) ask(ctx context.Context, here, there string, d oci.Digest) (registry.Blob, bool, error) {
	denied := func(ctx context.Context) (registry.Blob, bool, error) {
		said, err := p.said(ctx, here, blobRef(d))
		if err == nil && p.recent(said.CheckedAt, p.stretched(p.o.NegativeTTL)) {
			err = unknownBlob(here, d, nil)
		}
		return nil, false, err
	}
	return share(ctx, p, "have "+here+" "+d.String(), denied, func(ctx context.Context) (registry.Blob, error) {
		b, err := within(ctx, p, func(ctx context.Context) (registry.Blob, error) { return p.origin.Blob(ctx, there, d) })
		if noBlob(err) {
			p.denied(ctx, here, d)
			if !registry.IsCode(err, registry.NameUnknown) {
				err = unknownBlob(here, d, err)
			}
		}
		return b, err
	})
}

// denied remembers that the origin has no such blob.
func (p *Registry) denied(ctx context.Context, here string, d oci.Digest) {
	p.sizes.drop(here, d)
	p.save(ctx, here, blobRef(d), meta.ProxyTag{CheckedAt: p.o.Now()})
}

// blobRef is what a blob is remembered by among tags and manifests: its digest
// alone would be that of a manifest, which may be absent where the blob is not.
func blobRef(d oci.Digest) string { return "blob " + d.String() }

func unknownBlob(here string, d oci.Digest, err error) error {
	return &registry.Error{Code: registry.BlobUnknown, Repo: here, Detail: map[string]string{"digest": d.String()}, Err: err}
}

// noBlob reports whether an error says that there is no such blob.
func noBlob(err error) bool { return registry.IsCode(err, registry.BlobUnknown) || notThere(err) }

// held finds a blob of a repository in the cache, as linked does.
func (p *Registry) held(ctx context.Context, here string, d oci.Digest) (registry.Blob, error) {
	b, err := p.cache.Blob(ctx, here, d)
	if noBlob(err) {
		return p.linked(ctx, here, d)
	}
	return b, err
}

// linked links a blob that another repository of this proxy has into one that
// is proven to have it too. nil: there is no such other.
func (p *Registry) linked(ctx context.Context, here string, d oci.Digest) (registry.Blob, error) {
	for from, err := range p.cache.Holders(ctx, here, d) {
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(from, p.o.Name+"/") {
			break // those of this proxy come first
		}
		if from == here {
			continue
		}
		if err := p.link(ctx, here, from, d); err != nil {
			continue // it has just gone, or cannot be written: it is fetched, then
		}
		return p.cache.Blob(ctx, here, d)
	}
	return nil, nil
}

func (p *Registry) link(ctx context.Context, here, from string, d oci.Digest) error {
	_, err := p.cache.Mount(p.writing(ctx), here, from, d)
	if err != nil {
		p.o.Log.Warn("a cached blob could not be linked into another repository", "repo", here, "from", from, "digest", d, "error", err)
	}
	return err
}

// expect remembers the size of blobs that a manifest of a repository here names,
// so that the origin need not be asked for it.
func (p *Registry) expect(here string, m *oci.Manifest) {
	for _, d := range m.Blobs {
		p.sizes.add(here, d.Digest, d.Size)
	}
}

// fetchBlob brings a blob wholly into the cache.
func (p *Registry) fetchBlob(ctx context.Context, here, there string, d oci.Digest) error {
	b, err := p.blob(ctx, here, there, d)
	w, missing := b.(*wanted)
	if err != nil || !missing {
		return err
	}
	f, _, err := p.board(ctx, w)
	if err != nil {
		return err
	}
	defer p.flights.leave(f)
	select {
	case <-f.over:
		return f.result
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wanted is a blob that the origin has and the cache lacks.
type wanted struct {
	p           *Registry
	here, there string
	desc        oci.Descriptor
	from        registry.Blob // the origin's; nil: not asked for
	shared      bool          // others ask for it too
}

func (w *wanted) Descriptor() oci.Descriptor { return w.desc }

// URL is Unsupported: there is nothing to point at yet.
func (w *wanted) URL(context.Context, time.Duration) (string, error) {
	return "", registry.Errorf(registry.Unsupported, w.here, "the blob is on its way from the upstream registry; read it here")
}

// Open has the blob fetched, unless it is on its way, and reads what comes.
func (w *wanted) Open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	f, joined, err := w.p.board(ctx, w)
	if err != nil {
		return nil, err
	}
	return f.open(ctx, off, n, joined)
}
