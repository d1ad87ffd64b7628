package soak

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// verdict is how an attempt to change something ended.
type verdict int

const (
	inDoubt verdict = iota // it may have happened
	done
	refused // for a reason that is right; it did not happen
)

// change carries out a write. Half of the clients' writes are repeated until
// they are answered, the others are left in doubt as soon as an answer is lost,
// and found out about by reading later.
func (c *client) change(w *write, q request, judge func(answer) (verdict, error)) (verdict, error) {
	attempts := 1
	if c.chance(2) {
		attempts = 20
	}
	for range attempts {
		a, err := c.do(q)
		if isViolation(err) {
			return refused, err
		}
		if err != nil {
			w.lose()
			c.rest()
			continue
		}
		v, err := judge(a)
		if err != nil {
			return refused, err
		}
		if v == done || w.lost.IsZero() {
			w.end(v == done)
			return v, nil
		}
		break // an earlier attempt may still succeed
	}
	c.doubts = append(c.doubts, w)
	c.stats.count("writes left in doubt", 1)
	return inDoubt, nil
}

// put pushes a manifest and tags it; without tags it can be had by its digest
// only. It is refused when collection was faster, as it may be.
func (c *client) put(r *repo, m *manifest, tags ...string) (verdict, error) {
	w := &write{what: "put", puts: m, tags: map[string]string{}}
	for _, t := range tags {
		w.tags[t] = m.digest
	}
	if !r.begin(w, c.number) {
		return refused, nil
	}
	m = w.puts
	ref, query := m.digest, ""
	if len(tags) == 1 && c.chance(2) {
		ref = tags[0]
	} else if len(tags) > 0 {
		query = "?" + url.Values{"tag": tags}.Encode()
	}
	return c.change(w, request{
		kind: "push manifest", r: r, method: "PUT", path: "/v2/" + r.name + "/manifests/" + ref + query,
		kindOf: m.mediaType, body: m.content, accept: []int{201},
	}, func(a answer) (verdict, error) {
		switch {
		case a.status == http.StatusCreated && a.header.Get("Docker-Content-Digest") == m.digest:
			c.stats.count("manifests acknowledged", 1)
			return done, nil
		case a.status == http.StatusBadRequest && a.code() == "MANIFEST_BLOB_UNKNOWN":
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.mustAll(m, time.Now()) {
				return refused, violated(r, "%v: all that it names must be there%s", a, r.untils(m))
			}
			c.stats.count("pushes that were too slow for collection", 1)
			return refused, nil
		}
		return refused, violated(r, "%v", a)
	})
}

// untils says until when what m names must be there.
func (r *repo) untils(m *manifest) (text string) {
	for _, d := range m.blobs {
		text += fmt.Sprintf("; blob %s until %s", d, clock(r.untilBlob(d)))
	}
	for _, d := range m.children {
		text += fmt.Sprintf("; manifest %s until %s", d, clock(r.until(r.manifests[d])))
	}
	return text
}

// pushBlob brings content into a repository in one of the ways that the
// protocol has. It gives up after a while: the registry may be down.
func (c *client) pushBlob(r *repo, b content) (told bool, err error) {
	for range 10 {
		switch n := c.rng.IntN(10); {
		case n < 2:
			told, err = c.ask(r, b)
		case n < 4:
			told, err = c.pushAtOnce(r, b)
		case n < 6:
			told, err = c.mount(r, c.holderOf(b), b)
		default:
			told, err = c.pushSession(r, b)
		}
		if told || err != nil {
			return told, err
		}
		if c.alone {
			c.rest()
		}
	}
	return false, nil
}

// ask wants to know whether a blob is there, which spares clients the push.
func (c *client) ask(r *repo, b content) (told bool, err error) {
	r.mu.Lock()
	changes := r.blob(b).changes
	r.mu.Unlock()
	a, err := c.do(request{
		kind: "ask for blob", r: r, method: "HEAD", path: "/v2/" + r.name + "/blobs/" + b.digest, accept: []int{200, 404},
	})
	if err != nil {
		return false, unlessLost(err)
	}
	switch a.status {
	case http.StatusOK:
		if got := a.header.Get("Content-Length"); got != fmt.Sprint(b.size) {
			return false, violated(r, "%v: Content-Length %s, want %d", a, got, b.size)
		}
		r.isHere(b, a.began, true)
		return true, nil
	case http.StatusNotFound:
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.blob(b).changes == changes && r.mustBlob(b.digest, time.Now()) {
			return false, violated(r, "%v: it must be there until %s", a, clock(r.untilBlob(b.digest)))
		}
		return false, nil
	}
	return false, violated(r, "%v", a)
}

// pushAtOnce pushes a blob with one request.
func (c *client) pushAtOnce(r *repo, b content) (told bool, err error) {
	r.comes(b)
	a, err := c.do(request{
		kind: "push blob", r: r, method: "POST", path: "/v2/" + r.name + "/blobs/uploads/?digest=" + b.digest,
		kindOf: "application/octet-stream", body: b.part(0, b.size), accept: []int{201},
	})
	if err != nil {
		return false, unlessLost(err)
	}
	if a.status != http.StatusCreated {
		return false, violated(r, "%v", a)
	}
	r.isHere(b, a.began, false)
	c.stats.count("blobs acknowledged", 1)
	return true, nil
}

// holderOf finds another repository that may have the content; nil: unknown.
func (c *client) holderOf(b content) *repo {
	start := c.rng.IntN(len(c.all))
	for i := range c.all {
		r := c.all[(start+i)%len(c.all)]
		r.mu.Lock()
		has := r.mustBlob(b.digest, time.Now())
		r.mu.Unlock()
		if has {
			return r
		}
	}
	return nil
}

// mount has a repository take a blob over from another one. What it cannot
// mount it offers to receive, which this client does or declines.
func (c *client) mount(r, from *repo, b content) (told bool, err error) {
	path := "/v2/" + r.name + "/blobs/uploads/?mount=" + b.digest
	certain := func() bool { return false }
	if from != nil {
		path += "&from=" + from.name
		from.mu.Lock()
		changes := from.blob(b).changes
		from.mu.Unlock()
		certain = func() bool {
			from.mu.Lock()
			defer from.mu.Unlock()
			return from.blob(b).changes == changes && from.mustBlob(b.digest, time.Now())
		}
	}
	r.comes(b)
	a, err := c.do(request{kind: "mount blob", r: r, method: "POST", path: path, accept: []int{201}})
	if err != nil {
		return false, unlessLost(err)
	}
	switch {
	case a.status == http.StatusCreated:
		r.isHere(b, a.began, false)
		c.stats.count("blobs mounted", 1)
		return true, nil
	case a.status == http.StatusAccepted && certain():
		return false, violated(r, "%v: %s must have it", a, from.name)
	case a.status == http.StatusAccepted:
		s := &session{r: r, b: b, path: a.header.Get("Location"), touched: a.began}
		if c.chance(2) {
			return c.finish(s)
		}
		return false, c.cancel(s)
	}
	return false, violated(r, "%v", a)
}

// pushImage pushes an image of new, shared and mounted layers.
func (c *client) pushImage(r *repo, tags ...string) (*manifest, error) {
	parts := []content{c.fresh(200)}
	for range 1 + c.rng.IntN(3) {
		parts = append(parts, c.layer())
	}
	return c.pushParts(r, func() *manifest {
		d := document{MediaType: imageType, Config: part(configType, parts[0])}
		for _, l := range parts[1:] {
			d.Layers = append(d.Layers, *part(layerType, l))
		}
		return newManifest(d, c.newID())
	}(), parts, tags...)
}

// pushParts pushes blobs and then the manifest that names them, anew where
// collection was faster. It returns nil when it gave up.
func (c *client) pushParts(r *repo, m *manifest, parts []content, tags ...string) (*manifest, error) {
	for range 3 {
		for _, p := range parts {
			if told, err := c.pushBlob(r, p); !told || err != nil {
				return nil, err
			}
		}
		v, err := c.put(r, m, tags...)
		if err != nil {
			return nil, err
		}
		if v == done {
			return m, nil
		}
		if v == inDoubt {
			return nil, nil
		}
		c.stats.count("pushes begun anew", 1)
	}
	return nil, nil
}

// pushIndex pushes an index of a few images.
func (c *client) pushIndex(r *repo, tags ...string) error {
	d := document{MediaType: indexType}
	for range 1 + c.rng.IntN(3) {
		child, err := c.pushImage(r)
		if err != nil {
			return err
		}
		if child != nil {
			d.Manifests = append(d.Manifests, child.descriptor())
		}
	}
	if len(d.Manifests) == 0 {
		return nil
	}
	_, err := c.put(r, newManifest(d, c.newID()), tags...)
	return err
}

// pushArtifact pushes a referrer of a manifest, mostly without a tag.
func (c *client) pushArtifact(r *repo, subject *manifest, tags ...string) error {
	empty, layer := newContent(1, 2), c.fresh(2_000)
	s := subject.descriptor()
	m := newManifest(document{
		MediaType: imageType, ArtifactType: "application/vnd.example.sbom", Subject: &s,
		Config: part(emptyType, empty), Layers: []descriptor{*part("application/octet-stream", layer)},
	}, c.newID())
	_, err := c.pushParts(r, m, []content{empty, layer}, tags...)
	return err
}

// pushSlowly pushes a blob, asks for it when it is nearly due for collection,
// and names it in a manifest after it would have been collected, had nobody
// asked. The registry must keep what it said it has.
func (c *client) pushSlowly(r *repo) error {
	b, config := c.fresh(5_000), c.fresh(200)
	if told, err := c.pushBlob(r, b); !told || err != nil {
		return err
	}
	grace := r.graces.Unreferenced
	c.afterwards(scale(grace, 0.6+0.35*c.rng.Float64()), func() error {
		told, err := c.ask(r, b)
		if !told || err != nil {
			return err
		}
		c.stats.count("slow pushes", 1)
		c.afterwards(scale(grace, 0.42*c.rng.Float64()+0.05), func() error {
			m := newManifest(document{MediaType: imageType, Config: part(configType, config),
				Layers: []descriptor{*part(layerType, b)}}, c.newID())
			if told, err := c.pushAtOnce(r, config); !told || err != nil {
				return err
			}
			_, err := c.put(r, m, c.aTag(r))
			return err
		})
		return nil
	})
	return nil
}

func scale(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }

func part(mediaType string, b content) *descriptor { return &descriptor{mediaType, b.digest, b.size} }

// fresh is content that nobody has yet.
func (c *client) fresh(size int64) content {
	return newContent(c.rng.Uint64(), size/2+c.rng.Int64N(size/2+1)+1)
}

// pool is how many contents there are that all clients push.
const pool = 40

// layer is mostly small, at times large, and often what others push too.
func (c *client) layer() content {
	switch n := c.rng.IntN(40); {
	case n == 0:
		return c.fresh(14 << 20) // more than one part on S3
	case n < 3:
		return c.fresh(6 << 20)
	case n < 20:
		seed := uint64(100 + c.rng.IntN(pool))
		return newContent(seed, int64(1_000+seed%7*30_000))
	}
	return c.fresh(100_000)
}

// newID is different for every manifest.
func (c *client) newID() string {
	c.manifests++
	return fmt.Sprintf("%s/%d", c.name, c.manifests)
}

// afterwards plans what is to be done some time from now.
func (c *client) afterwards(wait time.Duration, do func() error) {
	c.later = append(c.later, step{time.Now().Add(wait), do})
}

// aTag is one of the client's tags in a repository.
func (c *client) aTag(r *repo) string {
	name := fmt.Sprint("v", c.rng.IntN(8))
	if r.common {
		name = fmt.Sprintf("c%d-%s", c.number, name)
	}
	return name
}

// path of a Location, which names no host.
func sessionPath(location string) string {
	if strings.HasPrefix(location, "/") {
		return location
	}
	return ""
}
