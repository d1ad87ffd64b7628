package soak

import (
	"testing"
	"time"
)

var testGraces = Graces{Untagged: time.Minute, Orphans: time.Minute, Unreferenced: time.Minute, Upload: time.Minute}

// pushed enters an acknowledged push into the model.
func pushed(t *testing.T, r *repo, m *manifest, tags ...string) *write {
	t.Helper()
	w := begun(t, r, m, tags...)
	w.end(true)
	return w
}

func begun(t *testing.T, r *repo, m *manifest, tags ...string) *write {
	t.Helper()
	w := &write{puts: m, tags: map[string]string{}}
	for _, name := range tags {
		w.tags[name] = m.digest
	}
	if !r.begin(w, 0) {
		t.Fatalf("%v cannot be written now", tags)
	}
	return w
}

func deleted(t *testing.T, r *repo, w *write) *write {
	t.Helper()
	if !r.begin(w, 0) {
		t.Fatal("it cannot be written now")
	}
	w.end(true)
	return w
}

func image(id string) *manifest {
	return newManifest(document{MediaType: imageType, Config: part(configType, newContent(3, 10))}, id)
}

// TestLostWrite: as long as nobody knows, both outcomes are right, and only
// both; then one is.
func TestLostWrite(t *testing.T) {
	for name, happened := range map[string]bool{"it happened": true, "it did not": false} {
		t.Run(name, func(t *testing.T) {
			r, a, b := newRepo("x/y", false, testGraces, &crashes{}), image("a"), image("b")
			pushed(t, r, a, "v1")
			w := begun(t, r, b, "v1")
			w.lose()
			if r.begin(&write{tags: map[string]string{"v1": ""}}, 0) {
				t.Error("what is in doubt is written")
			}
			if r.sawTag("v1", "", time.Now()) {
				t.Error("the tag is neither here nor there, and that is right")
			}
			if !r.sawTag("v1", a.digest, time.Now()) || w.r.tags["v1"].doubt == nil {
				t.Error("the old state decides although the request may still arrive")
			}
			at, began := a.digest, time.Now().Add(2*settle)
			if happened {
				at, began = b.digest, time.Now()
			}
			if !r.sawTag("v1", at, began) || r.tags["v1"].doubt != nil || r.tags["v1"].at != at || b.there != happened {
				t.Errorf("seeing %s decides nothing: %+v, there %v", at, r.tags["v1"], b.there)
			}
			if r.tags["v1"].idle(time.Now()) {
				t.Error("the tag may be written while the lost request may still arrive")
			}
		})
	}
}

func TestUntil(t *testing.T) {
	r := newRepo("x/y", false, testGraces, &crashes{})
	child, other := image("child"), image("other")
	index := newManifest(document{MediaType: indexType, Manifests: []descriptor{child.descriptor()}}, "index")
	subject := child.descriptor()
	referrer := newManifest(document{MediaType: imageType, Config: part(emptyType, newContent(1, 2)), Subject: &subject}, "referrer")
	for _, m := range []*manifest{child, other, referrer} {
		pushed(t, r, m)
	}
	pushed(t, r, index, "v1")
	for _, m := range []*manifest{child, index, referrer} {
		if !r.until(m).Equal(forever) {
			t.Errorf("a manifest that is held may go at %v", r.until(m))
		}
	}
	if r.revives(child) {
		t.Error("the referrer of what is held may have gone")
	}
	soon := time.Now().Add(testGraces.Untagged)
	if end := r.until(other); end.After(soon) || end.Before(soon.Add(-time.Second)) {
		t.Errorf("what nothing holds must be there until %v", end)
	}
	deleted(t, r, &write{tags: map[string]string{"v1": ""}})
	for i, m := range []*manifest{index, child, referrer} { // one after the other
		want := time.Now().Add(time.Duration(i+1) * testGraces.Untagged)
		if end := r.until(m); end.After(want) || end.Before(want.Add(-time.Second)) {
			t.Errorf("number %d must be there until %v, want %v", i, end, want)
		}
	}
	if !r.revives(child) || r.revives(index) {
		t.Error("to push again what may go may bring back what went with it, and nothing else may")
	}
	if _, may := r.listed(child, time.Now()); !may {
		t.Error("nothing lists a child")
	}
	deleted(t, r, &write{deletes: index})
	if !r.until(index).IsZero() || r.sawManifest(index, true, time.Now(), time.Now()) {
		t.Error("a deleted manifest may be seen")
	}
	if r.sawManifest(child, false, time.Now(), time.Now()) {
		t.Error("a child may be gone with its index at once")
	}
}

func TestUntilBlob(t *testing.T) {
	r, b := newRepo("x/y", false, testGraces, &crashes{}), newContent(3, 10)
	now := time.Now()
	if r.mustBlob(b.digest, now) {
		t.Error("a blob that nobody pushed must be there")
	}
	r.isHere(b, now, true)
	if !r.mustBlob(b.digest, now.Add(25*time.Second)) || r.mustBlob(b.digest, now.Add(35*time.Second)) {
		t.Errorf("who asked was promised it until %v", r.untilBlob(b.digest))
	}
	r.crashes.add(now.Add(time.Second), now.Add(time.Second))
	if r.mustBlob(b.digest, now.Add(time.Second)) {
		t.Error("the database may have forgotten that somebody asked")
	}
	r.isHere(b, now, false)
	if !r.mustBlob(b.digest, now.Add(55*time.Second)) || r.mustBlob(b.digest, now.Add(time.Minute)) {
		t.Errorf("who pushed was promised it until %v", r.untilBlob(b.digest))
	}
	m := image("a")
	pushed(t, r, m, "v1")
	if !r.untilBlob(b.digest).Equal(forever) {
		t.Error("a blob of a tagged image may go")
	}
	deleted(t, r, &write{deletes: m})
	if !r.untilBlob(b.digest).Equal(now.Add(time.Minute)) {
		t.Error("with its manifest goes the promise that the blob is there")
	}
}

// TestDeletedTooLate: what an index held has been without it since the index
// may have been collected, not since a client wanted to delete it.
func TestDeletedTooLate(t *testing.T) {
	r, child := newRepo("x/y", false, testGraces, &crashes{}), image("child")
	index := newManifest(document{MediaType: indexType, Manifests: []descriptor{child.descriptor()}}, "index")
	pushed(t, r, child)
	pushed(t, r, index)
	for _, m := range []*manifest{child, index} {
		m.told = m.told.Add(-90 * time.Second)
	}
	want := index.told.Add(2 * testGraces.Untagged)
	w := &write{deletes: index}
	if !r.begin(w, 0) {
		t.Fatal("it cannot be written now")
	}
	if end := r.until(child); !end.Equal(want) {
		t.Errorf("while its index is being deleted, the child must be there until %v, want %v", end, want)
	}
	w.end(true)
	if end := r.until(child); !end.Equal(want) {
		t.Errorf("the child must be there until %v, want %v", end, want)
	}
}

// TestForget: what is gone is forgotten, what holds or is held is not.
func TestForget(t *testing.T) {
	r, kept, gone := newRepo("x/y", false, testGraces, &crashes{}), image("kept"), image("gone")
	r.isHere(newContent(3, 10), time.Now(), false)
	r.isHere(newContent(4, 10), time.Now(), false)
	pushed(t, r, kept, "v1")
	pushed(t, r, gone)
	deleted(t, r, &write{deletes: gone})
	r.forget(time.Now())
	if len(r.manifests) != 2 || len(r.blobs) != 2 {
		t.Error("what was just deleted is forgotten")
	}
	r.forget(time.Now().Add(2 * memory))
	if len(r.manifests) != 1 || r.manifests[kept.digest] == nil || len(r.blobs) != 1 {
		t.Errorf("after a while there are %v and %v", r.manifests, r.blobs)
	}
}
