package soak

import (
	"maps"
	"slices"
	"time"
)

// operation is one thing that clients do, and how often.
type operation struct {
	weight int
	do     func(c *client, r *repo) error
}

// operations is what each client does at random in its repositories.
var operations = []operation{
	{22, func(c *client, r *repo) error { _, err := c.pushImage(r, c.someTags(r)...); return err }},
	{5, func(c *client, r *repo) error { return c.pushIndex(r, c.someTags(r)...) }},
	{8, (*client).pushReferrer},
	{5, (*client).pushSlowly},
	{10, (*client).moveTag},
	{6, (*client).dropTag},
	{7, (*client).dropManifest},
	{4, (*client).dropBlob},
	{12, (*client).pullOne},
	{12, (*client).pullFromOther},
	{3, (*client).listTags},
	{3, (*client).listOne},
	{3, func(c *client, r *repo) error { _, err := c.pushSession(r, c.layer()); return err }},
}

// enough is how many manifests of a client a repository holds before it deletes
// rather than pushes.
const enough = 30

// run does one thing after the other until stop, and then finishes nothing that
// it planned for later: uploads stay behind, to be collected.
func (c *client) run(stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := c.next(); err != nil {
			return err
		}
	}
}

// next does what is due, or else something at random.
func (c *client) next() error {
	if c.alone {
		c.rest()
	}
	if err := c.resolve(); err != nil {
		return err
	}
	now := time.Now()
	if c.steps++; c.steps%200 == 0 {
		for _, r := range append(slices.Clone(c.own), pick(c.rng, c.common)) {
			r.forget(now)
		}
	}
	for i, s := range c.later {
		if now.After(s.at) {
			c.later = slices.Delete(c.later, i, i+1)
			return s.do()
		}
	}
	r := pick(c.rng, c.own)
	if c.chance(5) {
		r = pick(c.rng, c.common)
	}
	if len(c.mine(r, func(m *manifest) bool { return m.there })) > enough {
		return c.dropManifest(r)
	}
	total := 0
	for _, o := range operations {
		total += o.weight
	}
	n := c.rng.IntN(total)
	for _, o := range operations {
		if n -= o.weight; n < 0 {
			return o.do(c, r)
		}
	}
	return nil
}

// someTags are none, one or two of the client's tags.
func (c *client) someTags(r *repo) []string {
	tags := make([]string, c.rng.IntN(6)/2)
	for i := range tags {
		tags[i] = c.aTag(r)
	}
	return slices.Compact(tags)
}

// pushReferrer attaches an artifact to something that is, or was, there.
func (c *client) pushReferrer(r *repo) error {
	subject := pick(c.rng, c.mine(r, func(m *manifest) bool { return m.there || c.chance(10) }))
	if subject == nil {
		return nil
	}
	var tags []string
	if c.chance(4) {
		tags = append(tags, c.aTag(r))
	}
	return c.pushArtifact(r, subject, tags...)
}

// moveTag points a tag at a manifest that is there, or brings back one that was.
func (c *client) moveTag(r *repo) error {
	m := pick(c.rng, c.mine(r, func(m *manifest) bool { return m.there || c.chance(8) }))
	if m == nil || r.revives(m) {
		return nil
	}
	_, err := c.put(r, m, c.aTag(r))
	return err
}

func (c *client) dropTag(r *repo) error {
	name := pick(c.rng, c.tagsOf(r, true))
	if name == "" {
		return nil
	}
	return c.deleteTag(r, name)
}

func (c *client) dropManifest(r *repo) error {
	m := pick(c.rng, c.mine(r, func(m *manifest) bool { return m.there }))
	if m == nil {
		return nil
	}
	return c.deleteManifest(r, m)
}

func (c *client) dropBlob(r *repo) error {
	r.mu.Lock()
	digest := pick(c.rng, slices.Sorted(maps.Keys(r.blobs)))
	b := r.blobs[digest]
	r.mu.Unlock()
	if b == nil {
		return nil
	}
	return c.deleteBlob(r, b)
}

// pullOne pulls something of the client's own, by tag or by digest; at times
// what was deleted, which must stay so.
func (c *client) pullOne(r *repo) error {
	if name := pick(c.rng, c.tagsOf(r, true)); name != "" && c.chance(2) {
		return c.pullTag(r, name)
	}
	m := pick(c.rng, c.mine(r, func(m *manifest) bool { return m.there || c.chance(4) }))
	if m == nil {
		return nil
	}
	return c.pullDigest(r, m)
}

// pullFromOther pulls what another client writes, while it does.
func (c *client) pullFromOther(*repo) error {
	r := pick(c.rng, c.all)
	name := pick(c.rng, c.tagsOf(r, false))
	if name == "" {
		return nil
	}
	return c.pullTag(r, name)
}

func (c *client) listOne(r *repo) error {
	subject := pick(c.rng, c.mine(r, func(m *manifest) bool { return true }))
	if subject == nil {
		return nil
	}
	return c.listReferrers(r, subject)
}
