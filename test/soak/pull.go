package soak

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// found is what a reader got.
type found struct {
	m  *manifest // nil: nothing was there, or no answer came
	ok bool      // an answer came
}

// fetchTag reads what a tag points to and holds it against the model.
func (c *client) fetchTag(r *repo, name string) (found, error) {
	r.mu.Lock()
	changes := r.changesOf(name)
	r.mu.Unlock()
	a, err := c.fetch(r, name)
	if err != nil {
		return found{}, unlessLost(err)
	}
	digest := ""
	if a.status == http.StatusOK {
		if digest, err = identity(r, a); err != nil {
			return found{}, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tags[name]
	// Other clients may change their tags while this one reads them.
	if changes == r.changesOf(name) && !r.sawTag(name, digest, a.began) {
		return found{}, violated(r, "%v: tag %s is %q, and must be %s", a, name, digest, t.wanted(name))
	}
	return c.known(r, a, digest)
}

func (r *repo) changesOf(name string) int {
	if t := r.tags[name]; t != nil {
		return t.changes
	}
	return -1
}

// wanted says where a tag may point.
func (t *tag) wanted(name string) string {
	if t == nil {
		return "absent"
	}
	if t.doubt != nil {
		return "\"" + t.at + "\" or \"" + t.doubt.tags[name] + "\""
	}
	return "\"" + t.at + "\""
}

// fetchManifest reads a manifest by its digest and holds it against the model.
func (c *client) fetchManifest(r *repo, m *manifest) (found, error) {
	r.mu.Lock()
	changes, must := m.changes, r.must(m, time.Now())
	r.mu.Unlock()
	a, err := c.fetch(r, m.digest)
	if err != nil {
		return found{}, unlessLost(err)
	}
	digest := ""
	if a.status == http.StatusOK {
		if digest, err = identity(r, a); err != nil {
			return found{}, err
		}
		if digest != m.digest {
			return found{}, violated(r, "%v: its bytes have digest %s", a.request, digest)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if changes == m.changes && !r.sawManifest(m, digest != "", a.began, time.Now()) {
		if digest != "" {
			return found{}, violated(r, "%v: it was deleted", a)
		}
		if must {
			return found{}, violated(r, "%v: it must be there until %s", a, clock(r.until(m)))
		}
	}
	return c.known(r, a, digest)
}

func clock(t time.Time) string {
	if t.Equal(forever) {
		return "it is deleted"
	}
	return t.UTC().Format("15:04:05.000")
}

func (c *client) fetch(r *repo, ref string) (answer, error) {
	a, err := c.do(request{
		kind: "pull manifest", r: r, method: "GET", path: "/v2/" + r.name + "/manifests/" + ref,
		header: []string{"Accept", imageType + ", " + indexType}, accept: []int{200},
	})
	if err == nil && a.status != http.StatusOK && a.status != http.StatusNotFound {
		err = violated(r, "%v", a)
	}
	return a, err
}

// identity is the digest of a manifest's bytes, which the answer must name.
func identity(r *repo, a answer) (string, error) {
	h := newChecker("sha256:")
	h.Write(a.body)
	if told := a.header.Get("Docker-Content-Digest"); told != h.digest() {
		return "", violated(r, "%s: Docker-Content-Digest is %q, the bytes have %s", a.request, told, h.digest())
	}
	return h.digest(), nil
}

// known finds the record of a manifest that was read.
func (c *client) known(r *repo, a answer, digest string) (found, error) {
	if digest == "" {
		return found{ok: true}, nil
	}
	m := r.manifests[digest]
	if m == nil {
		return found{}, violated(r, "%s: nobody pushed manifest %s", a.request, digest)
	}
	if got := a.header.Get("Content-Type"); got != m.mediaType {
		return found{}, violated(r, "%s: Content-Type is %q, want %q", a.request, got, m.mediaType)
	}
	return found{m, true}, nil
}

// pullBlob reads a blob, holds its bytes against its digest, and its absence
// against the model.
func (c *client) pullBlob(r *repo, b content) (ok bool, err error) {
	r.mu.Lock()
	changes := r.blob(b).changes
	r.mu.Unlock()
	body := newChecker(b.digest)
	a, err := c.do(request{
		kind: "pull blob", r: r, method: "GET", path: "/v2/" + r.name + "/blobs/" + b.digest,
		accept: []int{200}, sink: body,
	})
	if err != nil {
		return false, unlessLost(err)
	}
	switch a.status {
	case http.StatusOK:
		if body.digest() != b.digest || body.n != b.size {
			return false, violated(r, "%s: %d bytes have digest %s, want %d bytes", a.request, body.n, body.digest(), b.size)
		}
		r.isHere(b, a.began, true)
	case http.StatusNotFound:
	default:
		return false, violated(r, "%v", a)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.blob(b)
	if now.changes != changes {
		return true, nil
	}
	if a.status == http.StatusOK && now.deleted && !r.common {
		return false, violated(r, "%v: it was deleted", a.request)
	}
	if a.status == http.StatusNotFound && r.mustBlob(b.digest, time.Now()) {
		return false, violated(r, "%v: it must be there until %s", a, clock(r.untilBlob(b.digest)))
	}
	return true, nil
}

// pullTree reads all that a manifest names. Absent parts are judged by the
// model: nothing that is held may be absent.
func (c *client) pullTree(r *repo, m *manifest) error {
	r.mu.Lock()
	var blobs []content
	for _, d := range m.blobs {
		if b := r.blobs[d]; b != nil {
			blobs = append(blobs, b.content)
		}
	}
	var children []*manifest
	for _, d := range m.children {
		if child := r.manifests[d]; child != nil {
			children = append(children, child)
		}
	}
	r.mu.Unlock()
	for _, b := range blobs {
		if _, err := c.pullBlob(r, b); err != nil {
			return err
		}
	}
	for _, child := range children {
		got, err := c.fetchManifest(r, child)
		if err != nil {
			return err
		}
		if got.m != nil {
			if err := c.pullTree(r, got.m); err != nil {
				return err
			}
		}
	}
	return nil
}

// pullTag pulls a tag with everything below it.
func (c *client) pullTag(r *repo, name string) error {
	got, err := c.fetchTag(r, name)
	if err != nil || got.m == nil {
		return err
	}
	return c.pullTree(r, got.m)
}

// pullDigest pulls a manifest by its digest with everything below it.
func (c *client) pullDigest(r *repo, m *manifest) error {
	got, err := c.fetchManifest(r, m)
	if err != nil || got.m == nil {
		return err
	}
	return c.pullTree(r, got.m)
}

// listTags wants the tags that must be there, and none that must not.
func (c *client) listTags(r *repo) error {
	before := c.myTags(r)
	a, err := c.do(request{kind: "list tags", r: r, method: "GET", path: "/v2/" + r.name + "/tags/list", accept: []int{200}})
	if err != nil {
		return unlessLost(err)
	}
	var list struct{ Tags []string }
	if a.status == http.StatusOK {
		if err := json.Unmarshal(a.body, &list); err != nil {
			return violated(r, "%v: %v", a, err)
		}
	} else if a.status != http.StatusNotFound {
		return violated(r, "%v", a)
	}
	if !slices.IsSorted(list.Tags) {
		return violated(r, "%v: not in bytewise order", a)
	}
	for name, may := range before {
		has := slices.Contains(list.Tags, name)
		if !slices.Contains(may, has) {
			return violated(r, "%v: tag %s is listed: %v", a, name, has)
		}
	}
	return nil
}

// myTags are the tags that this client writes, and whether they may be there.
func (c *client) myTags(r *repo) map[string][]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := map[string][]bool{}
	for name, t := range r.tags {
		if t.owner != c.number {
			continue
		}
		list[name] = []bool{t.at != ""}
		if t.doubt != nil {
			list[name] = append(list[name], t.doubt.tags[name] != "")
		}
	}
	return list
}

// listReferrers wants all referrers of a subject that must be there, and none
// that was deleted.
func (c *client) listReferrers(r *repo, subject *manifest) error {
	a, err := c.do(request{
		kind: "list referrers", r: r, method: "GET", path: "/v2/" + r.name + "/referrers/" + subject.digest, accept: []int{200},
	})
	if err != nil {
		return unlessLost(err)
	}
	var index document
	if a.status != http.StatusOK || json.Unmarshal(a.body, &index) != nil || index.MediaType != indexType {
		return violated(r, "%v", a)
	}
	listed := map[string]descriptor{}
	for _, d := range index.Manifests {
		listed[d.Digest] = d
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.manifests {
		d, has := listed[m.digest]
		delete(listed, m.digest)
		switch {
		case m.owner != c.number: // it may have changed meanwhile
		case has && (m.subject != subject.digest || d.Size != int64(len(m.content)) || m.deleted && m.doubt == nil):
			return violated(r, "%v: %s is listed", a, m.digest)
		case !has && m.subject == subject.digest && r.must(m, time.Now()):
			return violated(r, "%v: %s is not listed, and must be there until %s", a, m.digest, clock(r.until(m)))
		}
	}
	for d := range listed {
		return violated(r, "%v: nobody pushed %s", a, d)
	}
	return nil
}

// unlessLost drops an error that says only that no answer came.
func unlessLost(err error) error {
	if errors.Is(err, errLost) {
		return nil
	}
	return err
}

// algorithmOf is the first part of a digest.
func algorithmOf(digest string) string {
	algorithm, _, _ := strings.Cut(digest, ":")
	return algorithm
}
