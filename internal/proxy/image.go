package proxy

import (
	"context"
	"slices"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// image is what is evicted together: a manifest that stands by itself, what it
// holds and what belongs to it, as far as nothing else needs that.
type image struct {
	here   string
	root   *node
	nodes  map[oci.Digest]*node
	pinned bool
}

// node is a manifest of an image. It came from the origin.
type node struct {
	note    meta.ProxyManifest
	parsed  *oci.Manifest
	size    int64
	tags    []string
	holders []oci.Digest // indexes of its repository
	// local says that something was pushed here that refers to it.
	local bool
	// attached says that its subject is here.
	attached bool
}

// blobs that it names; each once.
func (n *node) blobs() []oci.Descriptor {
	all := slices.Concat(n.parsed.Blobs, n.parsed.Foreign)
	slices.SortFunc(all, func(a, b oci.Descriptor) int { return compareDigests(a.Digest, b.Digest) })
	return slices.CompactFunc(all, func(a, b oci.Descriptor) bool { return a.Digest == b.Digest })
}

func compareDigests(a, b oci.Digest) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Bounds of what is looked at of one image. What is beyond them stays when it
// goes, and is an image of its own then.
const (
	maxNodes   = 1000
	maxHolders = 100
	tagsPage   = 100
	manyTags   = 10_000 // more pin an image: somebody uses it for something odd
)

// image is the image that begins with a manifest; nil where that belongs to
// another, or is gone.
func (e *eviction) image(ctx context.Context, m meta.ProxyManifest) (*image, error) {
	root, err := e.node(ctx, m)
	if root == nil || err != nil {
		return nil, err
	}
	if belongs, err := e.belongs(ctx, root); belongs || err != nil {
		return nil, err
	}
	return e.around(ctx, root)
}

// around is the image of a root.
func (e *eviction) around(ctx context.Context, root *node) (*image, error) {
	m := root.note
	i := &image{here: m.Repository, root: root, nodes: map[oci.Digest]*node{m.Digest: root}}
	for queue := []*node{root}; len(queue) > 0; queue = queue[1:] {
		near, err := e.near(ctx, queue[0])
		if err != nil {
			return nil, err
		}
		for _, note := range near {
			if i.nodes[note.Digest] != nil || len(i.nodes) == maxNodes {
				continue
			}
			n, err := e.node(ctx, note)
			if err != nil {
				return nil, err
			}
			if n != nil {
				i.nodes[note.Digest] = n
				queue = append(queue, n)
			}
		}
	}
	i.leaveOthers()
	for _, n := range i.nodes {
		i.pinned = i.pinned || n.local || e.isPinned(i, n)
	}
	return i, nil
}

// node reads a manifest; nil: it is gone.
func (e *eviction) node(ctx context.Context, note meta.ProxyManifest) (*node, error) {
	here, d := note.Repository, note.Digest
	m, ok, err := e.p.cached(ctx, here, oci.DigestRef(d))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, coded(e.p.o.State.ForgetProxyManifest(e.p.writing(ctx), note, nil), here)
	}
	n := &node{note: note, size: int64(len(m.Content))}
	if n.parsed, err = oci.ParseManifest(m.MediaType, m.Content); err != nil {
		n.parsed = &oci.Manifest{} // nothing is known of it but that it is there
	}
	if n.holders, err = e.p.o.State.ManifestHolders(ctx, here, d, maxHolders); err != nil {
		return nil, coded(err, here)
	}
	for after := ""; len(n.tags) < manyTags; after = n.tags[len(n.tags)-1] {
		page, err := e.p.o.State.ManifestTags(ctx, here, d, after, tagsPage)
		if err != nil {
			return nil, coded(err, here)
		}
		if n.tags = append(n.tags, page...); len(page) < tagsPage {
			break
		}
	}
	if n.parsed.Subject != nil {
		n.attached, err = e.there(ctx, here, n.parsed.Subject.Digest)
	}
	return n, err
}

func (e *eviction) there(ctx context.Context, here string, d oci.Digest) (bool, error) {
	_, err := e.p.cache.Resolve(ctx, here, oci.DigestRef(d))
	if notThere(err) {
		return false, nil
	}
	return err == nil, err
}

// belongs reports whether a manifest goes with another one, if at all: an index
// that holds it, its subject, or the manifest that its tags are made of.
func (e *eviction) belongs(ctx context.Context, n *node) (bool, error) {
	if len(n.holders) > 0 || n.attached {
		return true, nil
	}
	for _, tag := range n.tags {
		subject, _, ok := companionOf(tag)
		if !ok {
			return false, nil
		}
		if ok, err := e.there(ctx, n.note.Repository, subject); !ok || err != nil {
			return false, err
		}
	}
	return len(n.tags) > 0, nil
}

// near lists what a manifest holds and what belongs to it, as far as that came
// from the origin.
func (e *eviction) near(ctx context.Context, n *node) ([]meta.ProxyManifest, error) {
	here := n.note.Repository
	referrers, local, err := e.referrers(ctx, here, n.note.Digest)
	if err != nil {
		return nil, err
	}
	n.local = local
	for _, tag := range companionTags(n.note.Digest) {
		d, err := e.p.cache.Resolve(ctx, here, oci.TagRef(tag))
		if err == nil {
			referrers = append(referrers, d.Digest)
		} else if !notThere(err) {
			return nil, err
		}
	}
	for _, d := range n.parsed.Manifests {
		referrers = append(referrers, d.Digest)
	}
	return e.came(ctx, here, referrers)
}

// came finds the notes of those manifests that have one.
func (e *eviction) came(ctx context.Context, here string, digests []oci.Digest) (list []meta.ProxyManifest, err error) {
	theirs, err := e.p.o.State.FromUpstream(ctx, here, digests)
	if err != nil {
		return nil, coded(err, here)
	}
	for _, d := range digests {
		if !theirs[d] {
			continue
		}
		note, ok, err := e.p.came(ctx, here, d)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, note)
		}
		delete(theirs, d)
	}
	return list, nil
}

// referrers lists the first of those that the cache has of a manifest, and
// reports whether any at all was pushed here.
func (e *eviction) referrers(ctx context.Context, here string, subject oci.Digest) (list []oci.Digest, local bool, err error) {
	var part []oci.Digest
	look := func() error {
		theirs, err := e.p.o.State.FromUpstream(ctx, here, part)
		for _, d := range part {
			local = local || err == nil && !theirs[d]
		}
		part = part[:0]
		return coded(err, here)
	}
	for d, err := range e.p.cache.Referrers(ctx, here, subject, "", "") {
		if err != nil {
			return nil, false, err
		}
		if len(list) < maxNodes {
			list = append(list, d.Digest)
		}
		if part = append(part, d.Digest); len(part) == maxHolders {
			if err := look(); err != nil || local {
				return list, local, err
			}
		}
	}
	return list, local, look()
}

// leaveOthers leaves out what something outside of the image needs, and what
// belongs to that.
func (i *image) leaveOthers() {
	for changed := true; changed; {
		changed = false
		for d, n := range i.nodes {
			if n != i.root && !i.only(n) {
				delete(i.nodes, d)
				changed = true
			}
		}
	}
}

// only reports whether a manifest is there for the image alone.
func (i *image) only(n *node) bool {
	for _, d := range n.holders {
		if i.nodes[d] == nil {
			return false
		}
	}
	for _, tag := range n.tags {
		subject, _, ok := companionOf(tag)
		if !ok || i.nodes[subject] == nil {
			return false
		}
	}
	return !n.attached || i.nodes[n.parsed.Subject.Digest] != nil
}

func (e *eviction) isPinned(i *image, n *node) bool {
	if len(n.tags) >= manyTags && !e.force {
		return true
	}
	if e.pinned == nil {
		return false
	}
	there := e.p.there(i.here)
	if n == i.root && len(n.tags) == 0 {
		return e.pinned(there, "")
	}
	return slices.ContainsFunc(n.tags, func(tag string) bool { return e.pinned(there, tag) })
}

// newest is when a part of the image was last used.
func (i *image) newest() (t time.Time) {
	for _, n := range i.nodes {
		if n.note.UsedAt.After(t) {
			t = n.note.UsedAt
		}
	}
	return t
}

// inOrder lists the nodes, the root first.
func (i *image) inOrder() []*node {
	list := []*node{i.root}
	for _, n := range i.nodes {
		if n != i.root {
			list = append(list, n)
		}
	}
	slices.SortFunc(list[1:], func(a, b *node) int { return compareDigests(a.note.Digest, b.note.Digest) })
	return list
}
