package test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
)

// ledger is what the server has promised to one pusher.
type ledger struct {
	blobs     []promisedBlob
	manifests []promisedManifest
	tags      map[string]*promisedTag
	sessions  []*session // opened, and not known to be closed

	checkedBlobs, checkedManifests int // how many of them checkNew has seen
}

type promisedBlob struct {
	repo, digest string
	size         int64
}

type promisedManifest struct{ repo, digest, mediaType string }

// promisedTag is where a tag must point: to what was acknowledged last or to
// what an unanswered request asked for.
type promisedTag struct{ repo, tag, acked, pending string }

// session is an upload that the server opened.
type session struct {
	repo, path string
	content    stuff
	acked      int64 // bytes that were acknowledged
	closing    bool  // the request that ends it may have arrived
}

// pusher pushes images to a repository of its own, in every way the protocol
// knows, and writes down each answer.
type pusher struct {
	api    *api
	repo   string
	number uint64 // among the pushers
	images uint64 // pushed so far
	ledger
}

// pushImages goes on until an error.
func (p *pusher) pushImages() error {
	for {
		if err := p.pushImage(); err != nil {
			return err
		}
	}
}

func (p *pusher) pushImage() error {
	p.images++
	layer, err := p.pushStuff(p.nextContent())
	if err != nil {
		return err
	}
	config, err := p.pushStuff(stuff{p.number<<32 | p.images, 300})
	if err != nil {
		return err
	}
	content := asJSON(map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": []descriptor{layer},
	})
	if err := p.pushTag(fmt.Sprint("v", p.images), content); err != nil {
		return err
	}
	return p.pushTag("latest", content)
}

// nextContent is mostly small, at times large or empty, and at times what
// another pusher is pushing too.
func (p *pusher) nextContent() stuff {
	switch n := rand.IntN(20); {
	case n == 0:
		return stuff{}
	case n < 3:
		return stuff{rand.Uint64(), 1<<20 + rand.Int64N(4<<20)}
	case n < 6:
		return stuff{p.images, 50_000}
	}
	return stuff{rand.Uint64(), 2 + rand.Int64N(200_000)}
}

// pushTag puts a manifest under a tag.
func (p *pusher) pushTag(tag string, content []byte) error {
	t := p.tags[tag]
	if t == nil {
		t = &promisedTag{repo: p.repo, tag: tag}
		p.tags[tag] = t
	}
	t.pending = digestOf(content)
	d, err := p.api.pushManifest(p.repo, tag, ociManifest, content)
	if err != nil {
		return err
	}
	t.acked, t.pending = d.Digest, ""
	p.manifests = append(p.manifests, promisedManifest{p.repo, d.Digest, ociManifest})
	return nil
}

// pushStuff uploads a blob: in one request, in two, or in pieces.
func (p *pusher) pushStuff(content stuff) (descriptor, error) {
	d := descriptor{"application/octet-stream", content.digest(), content.size}
	var err error
	if rand.IntN(3) == 0 {
		_, err = p.api.send("POST", "/v2/"+p.repo+"/blobs/uploads/?digest="+d.Digest, bytes.NewReader(content.bytes()),
			[]string{"Content-Type", "application/octet-stream"}, 201)
	} else {
		err = p.pushSession(content, d.Digest)
	}
	if err == nil {
		p.blobs = append(p.blobs, promisedBlob{p.repo, d.Digest, d.Size})
	}
	return d, err
}

func (p *pusher) pushSession(content stuff, digest string) error {
	path, err := p.api.startUpload(p.repo)
	if err != nil {
		return err
	}
	s := &session{repo: p.repo, path: path, content: content}
	p.sessions = append(p.sessions, s)
	for range rand.IntN(4) {
		if err := s.patch(p.api, 1+(content.size-s.acked)/2); err != nil {
			return err
		}
	}
	if err := s.finish(p.api, digest); err != nil {
		return err
	}
	p.sessions = p.sessions[:len(p.sessions)-1]
	return nil
}

// patch sends the next n bytes of the content, or what is left of it.
func (s *session) patch(a *api, n int64) error {
	n = min(n, s.content.size-s.acked)
	if n == 0 {
		return nil
	}
	chunk := stuff{s.content.seed, s.acked + n}.from(s.acked)
	h, err := a.send("PATCH", s.path, chunk, []string{
		"Content-Type", "application/octet-stream",
		"Content-Range", fmt.Sprintf("%d-%d", s.acked, s.acked+n-1),
	}, 202)
	if err != nil {
		return err
	}
	end, err := rangeEnd(h.Get("Range"))
	if err == nil && end != s.acked+n {
		err = fmt.Errorf("PATCH up to byte %d answered Range %q", s.acked+n, h.Get("Range"))
	}
	if err != nil {
		return err
	}
	s.acked = end
	s.path, err = sessionPath(h)
	return err
}

// finish sends the rest of the content with the request that ends the session.
func (s *session) finish(a *api, digest string) error {
	s.closing = true
	return a.finishUpload(s.path, digest, s.content.from(s.acked))
}

// fates counts how unfinished sessions fared.
type fates struct{ resumed, committed, gone int }

// resume holds every open session against what the server says now and
// completes it. Only one whose last request may have arrived can be absent.
func (p *pusher) resume(f *fates) error {
	for _, s := range p.sessions {
		path, offset, err := p.api.uploadOffset(s.path)
		var status *statusError
		if errors.As(err, &status) && status.got == 404 && s.closing {
			if p.api.checkBlob(s.repo, s.content.digest(), s.content.size) == nil {
				f.committed++
			} else {
				f.gone++
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("session with %d bytes acknowledged: %w", s.acked, err)
		}
		if offset < s.acked || offset > s.content.size {
			return fmt.Errorf("session %s: the server has %d bytes, %d of %d were acknowledged", path, offset, s.acked, s.content.size)
		}
		s.path, s.acked = path, offset
		if err := s.patch(p.api, 1+(s.content.size-offset)/2); err != nil {
			return err
		}
		digest := s.content.digest()
		if err := s.finish(p.api, digest); err != nil {
			return err
		}
		p.blobs = append(p.blobs, promisedBlob{s.repo, digest, s.content.size})
		f.resumed++
	}
	p.sessions = nil
	return nil
}

// settleTags wants every tag with an unanswered request where it was before or
// where that request wanted it.
func (p *pusher) settleTags() error {
	for name, t := range p.tags {
		if t.pending == "" {
			continue
		}
		d, err := p.api.verify(t.repo, t.tag)
		var status *statusError
		switch {
		case errors.As(err, &status) && status.got == 404 && t.acked == "":
			delete(p.tags, name)
			continue
		case err != nil:
			return err
		case d.Digest != t.acked && d.Digest != t.pending:
			return fmt.Errorf("tag %s of %s is %s, neither %q nor %q", t.tag, t.repo, d.Digest, t.acked, t.pending)
		}
		t.acked, t.pending = d.Digest, ""
	}
	return nil
}

// checkNew fetches what was promised since the last call, byte for byte, and
// resolves every tag.
func (p *pusher) checkNew() error {
	for _, b := range p.blobs[p.checkedBlobs:] {
		if err := p.api.checkBlob(b.repo, b.digest, b.size); err != nil {
			return err
		}
	}
	for _, m := range p.manifests[p.checkedManifests:] {
		d, _, err := p.api.manifest(m.repo, m.digest)
		if err != nil {
			return err
		}
		if d.MediaType != m.mediaType {
			return fmt.Errorf("manifest %s of %s is of type %q, want %q", m.digest, m.repo, d.MediaType, m.mediaType)
		}
	}
	p.checkedBlobs, p.checkedManifests = len(p.blobs), len(p.manifests)
	return p.checkTags()
}

// checkAll is checkNew for everything ever promised.
func (p *pusher) checkAll() error {
	p.checkedBlobs, p.checkedManifests = 0, 0
	return p.checkNew()
}

// checkTags resolves every tag.
func (p *pusher) checkTags() error {
	for _, t := range p.tags {
		h, err := p.api.send("HEAD", "/v2/"+t.repo+"/manifests/"+t.tag, nil, []string{"Accept", manifestTypes}, 200)
		if err != nil {
			return err
		}
		if got := h.Get("Docker-Content-Digest"); got != t.acked {
			return fmt.Errorf("tag %s of %s is %s, want %s", t.tag, t.repo, got, t.acked)
		}
	}
	return nil
}

// together runs f once for every element at the same time and joins the errors.
func together[T any](list []T, f func(T) error) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, x := range list {
		wg.Go(func() { errs[i] = f(x) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
