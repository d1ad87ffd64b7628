// Package metatest is the conformance suite of meta.DB: the contract of each
// verb, whatever engine keeps the rows.
package metatest

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

const (
	repo  = "team/app"
	other = "team/other"
	ttl   = 10 * time.Second
)

// Run runs the suite. open makes a fresh, empty database with the options, of
// which it sets those that say where the rows are, and registers its end with
// t.Cleanup.
func Run(t *testing.T, open func(t *testing.T, o meta.Options) *meta.DB) {
	t.Helper()
	t.Run("alone", func(t *testing.T) { runCases(t, slices.Concat(common(), longTrailCases), open, false) })
	t.Run("shared", func(t *testing.T) { RunShared(t, open) })
}

// RunShared runs the part of the suite for an engine that is always shared.
func RunShared(t *testing.T, open func(t *testing.T, o meta.Options) *meta.DB) {
	t.Helper()
	runCases(t, slices.Concat(common(), expiryCases), open, true)
}

// common cases are those of all databases.
func common() []testCase {
	return slices.Concat(blobCases, manifestCases, pendingCases, deleteCases, listCases,
		uploadCases, leaseCases, collectCases, deadCases, reviewCases, queueCases, checkCases, concurrentCases,
		organizationCases, projectCases, memberCases, userCases, groupCases, keyCases, trustCases, planCases,
		usageCases, quotaCases, renameCases, projectDeleteCases, purgeCases, ownerCases, recordCases,
		rateCases, auditCases, claimCases, loginCases, tokenCases, jobCases, observeCases, backlogCases,
		proxyTagCases, proxyManifestCases, proxyLeaseCases, proxyCollectCases, proxyCases, randomCases)
}

func runCases(t *testing.T, cases []testCase, open func(t *testing.T, o meta.Options) *meta.DB, shared bool) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e := &env{T: t, clock: newClock()}
			e.db = open(t, meta.Options{Now: e.clock.now, Shared: shared, Observe: e.heard.observer()})
			c.run(e)
		})
	}
}

type testCase struct {
	name string
	run  func(e *env)
}

// env is one case's database and the clock that it reads.
type env struct {
	*testing.T
	db    *meta.DB
	clock *clock
	heard heard
}

// clock stands still until it is moved.
type clock struct{ millis atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.millis.Store(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	return c
}

func (c *clock) now() time.Time       { return time.UnixMilli(c.millis.Load()) }
func (c *clock) move(d time.Duration) { c.millis.Add(d.Milliseconds()) }

// digest names content that is nowhere but in the test.
func digest(name string) oci.Digest { return oci.SHA256.FromBytes([]byte(name)) }

func (e *env) ok(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) wantErr(what string, err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("%s: %v, want %v", what, err, want)
	}
}

// wantHeld checks that err names just the holders.
func (e *env) wantHeld(what string, err error, by ...oci.Digest) {
	e.Helper()
	var held *meta.ReferencedError
	if !errors.As(err, &held) {
		e.Errorf("%s: %v, want a refusal", what, err)
	} else if by = slices.Sorted(slices.Values(by)); !slices.Equal(held.By, by) {
		e.Errorf("%s: held by %v, want %v", what, held.By, by)
	}
}

// lease starts a session of size bytes and leases it.
func (e *env) lease(repo string, size int64) meta.Upload {
	e.Helper()
	u := meta.Upload{ID: uuid.NewString(), Repository: repo, Algorithm: oci.SHA256, Size: size, Hash: []byte("hash"), State: []byte("state")}
	e.ok(e.db.CreateUpload(e.Context(), u))
	u, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
	e.ok(err)
	return u
}

func (e *env) release(u meta.Upload) {
	e.Helper()
	e.ok(e.db.ReleaseUpload(e.Context(), u.ID, u.Version))
}

// push commits a blob of len(name) bytes and returns its digest and key.
func (e *env) push(repo, name string) (oci.Digest, string) {
	e.Helper()
	u := e.lease(repo, int64(len(name)))
	kept, err := e.db.CommitBlob(e.Context(), u, digest(name))
	e.ok(err)
	e.release(u)
	if !kept {
		return digest(name), ""
	}
	return digest(name), u.ID
}

func descriptors(list []oci.Digest) []oci.Descriptor {
	var all []oci.Descriptor
	for _, d := range list {
		all = append(all, oci.Descriptor{Digest: d, Size: 1})
	}
	return all
}

// image describes a manifest that holds blobs; name is its content.
func image(repo, name string, blobs ...oci.Digest) meta.PutManifest {
	return meta.PutManifest{Repository: repo, Digest: digest(name), Content: []byte(name),
		Parsed: &oci.Manifest{MediaType: oci.MediaTypeImage, ArtifactType: "application/x", Blobs: descriptors(blobs)}}
}

// index describes a manifest that holds manifests.
func index(repo, name string, children ...oci.Digest) meta.PutManifest {
	return meta.PutManifest{Repository: repo, Digest: digest(name), Content: []byte(name),
		Parsed: &oci.Manifest{MediaType: oci.MediaTypeIndex, Manifests: descriptors(children)}}
}

func (e *env) put(p meta.PutManifest, tags ...string) oci.Digest {
	e.Helper()
	p.Tags = tags
	e.ok(e.db.PutManifest(e.Context(), p))
	return p.Digest
}

// noBlob checks that repo, which exists, does not serve d.
func (e *env) noBlob(repo string, d oci.Digest) {
	e.Helper()
	_, err := e.db.Blob(e.Context(), repo, d)
	e.wantErr("find a blob that is not there", err, meta.ErrNotFound)
}

func (e *env) hasBlob(repo string, d oci.Digest) meta.Blob {
	e.Helper()
	b, err := e.db.Blob(e.Context(), repo, d)
	e.ok(err)
	return b
}

// dead lists the keys of all dead objects.
func (e *env) dead() []string {
	e.Helper()
	objects, err := e.db.DeadObjects(e.Context(), e.clock.now(), 1000)
	e.ok(err)
	keys := []string{}
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	slices.Sort(keys)
	return keys
}

func (e *env) wantDead(keys ...string) {
	e.Helper()
	keys = slices.Sorted(slices.Values(keys))
	if got := e.dead(); !slices.Equal(got, keys) {
		e.Errorf("dead are %v, want %v", got, keys)
	}
}

// damage marks a blob's bytes as lost.
func (e *env) damage(d oci.Digest, key string) {
	e.Helper()
	e.ok(e.db.MarkDamaged(e.Context(), meta.CheckedBlob{Digest: d, Key: key}))
}
