package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-registry/berth/test/upstreamtest"
)

// 29: when the cache is full the image that was used least lately goes with all
// that it alone has. What others share stays, who reads goes on, and the image
// comes back when it is asked for. What was signed here stays, with what that is
// a signature of.
func evicted(k *cacheCheck) {
	const own, common = 12 << 20, 4 << 20
	// Three images with what they share are 40 MiB, four are 52: of 56 MiB that is
	// above nine tenths, and one less is below eight.
	up := k.upstream(spec{"cache": spec{"size": "56MiB"}})
	shared, images := upstreamtest.Bytes(2900, common), map[string]upstreamtest.Image{}
	pull := func(tag string) {
		k.t.Helper()
		if _, ok := images[tag]; !ok {
			images[tag] = up.AddImageOf(app, tag, uint64(tag[0]), shared, upstreamtest.Bytes(uint64(2900+int(tag[0])), own))
		}
		k.repo().same(tag, images[tag].Digest)
	}
	var signature upstreamtest.Image
	k.run(func() {
		for _, tag := range []string{"a", "b", "c"} {
			pull(tag)
		}
		signature = k.attach(k.name+"/"+app, images["c"].Descriptor, "a/b", map[string]string{"made": "here"})
	})
	k.again(func() { // all uses were noted when it stopped
		for tag, ago := range map[string]time.Duration{"a": 2 * time.Hour, "b": time.Hour, "c": 3 * time.Hour} {
			k.idle(images[tag].Digest, ago)
		}
		pull("a") // so that b is the one, for c is signed
		k.usedAfter(images["a"].Digest, images["b"].Digest)
		reading, err := begin(k.client, k.path("blobs", images["b"].Blobs[1].Digest))
		if err != nil {
			k.t.Fatal(err)
		}
		pull("d")
		for end := time.Now().Add(3 * patienceOfTest); k.hasRow(images["b"].Digest); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(end) {
				k.t.Fatalf("nothing was evicted:\n%s\n%+v", k.dump(), images)
			}
		}
		if err := reading.rest(images["b"].Blobs[1].Digest); err != nil {
			k.t.Errorf("a read that was under way: %v", err)
		}
		for _, tag := range []string{"a", "c", "d"} {
			if !k.hasRow(images[tag].Digest) {
				k.t.Errorf("%s is gone too", tag)
			}
		}
		up.Stop()
		for _, tag := range []string{"a", "c", "d"} {
			k.repo().same(tag, images[tag].Digest)
			k.repo().same(images[tag].Digest, images[tag].Digest)
		}
		for _, path := range []string{k.path("manifests", "b"), k.path("manifests", images["b"].Digest), k.path("blobs", images["b"].Blobs[1].Digest)} {
			if s := k.get(path); s.status < 500 {
				k.t.Errorf("%s of the image that went: %d", s.asked, s.status)
			}
		}
		k.get(k.path("manifests", signature.Digest)).gives(signature.Content)
		up.Start()
		for end := time.Now().Add(patienceOfTest); ; time.Sleep(500 * time.Millisecond) { // a breaker may be open
			if s := k.get(k.path("manifests", "b")); s.status == 200 || time.Now().After(end) {
				break
			}
		}
		pull("b")
	})
}

// dump tells what the database has of the cache, for a message.
func (k *cacheCheck) dump() string {
	var lines strings.Builder
	rows, err := k.c.rows.Query("SELECT digest, fetched_at, used_at FROM proxy_manifests WHERE proxy = $1 ORDER BY used_at", k.name)
	if err != nil {
		return err.Error()
	}
	defer rows.Close()
	for rows.Next() {
		var digest string
		var fetched, used int64
		if err := rows.Scan(&digest, &fetched, &used); err != nil {
			return err.Error()
		}
		fmt.Fprintf(&lines, "%.20s fetched %s used %s\n", digest, time.UnixMilli(fetched).Format(time.TimeOnly), time.UnixMilli(used).Format(time.TimeOnly))
	}
	var usage int64
	err = k.c.rows.QueryRow("SELECT u.storage FROM projects p JOIN project_usage u ON u.project_id = p.id WHERE p.name = $1", k.name).Scan(&usage)
	fmt.Fprintf(&lines, "%d bytes in use, %v; now it is %s", usage, err, time.Now().Format(time.TimeOnly))
	return lines.String()
}

// hasRow says whether a manifest is known to have come from upstream.
func (k *cacheCheck) hasRow(digest string) bool {
	k.t.Helper()
	var n int
	err := k.c.rows.QueryRow("SELECT COUNT(*) FROM manifests m JOIN repositories r ON r.id = m.repository_id WHERE r.name = $1 AND m.digest = $2", k.name+"/"+app, digest).Scan(&n)
	if err != nil {
		k.t.Fatal(err)
	}
	return n > 0
}

// idle has the last use of a manifest have been so long ago.
func (k *cacheCheck) idle(digest string, d time.Duration) {
	k.t.Helper()
	r, err := k.c.rows.Exec("UPDATE proxy_manifests SET used_at = used_at - $3 WHERE repository = $1 AND digest = $2", k.name+"/"+app, digest, d.Milliseconds())
	if err != nil {
		k.t.Fatal(err)
	}
	if n, err := r.RowsAffected(); n != 1 || err != nil {
		k.t.Fatalf("%d manifests, %v", n, err)
	}
}

// usedAfter waits until the use of one manifest is noted as later than another's.
func (k *cacheCheck) usedAfter(later, earlier string) {
	k.t.Helper()
	db := k.c.rows
	for end := time.Now().Add(patienceOfTest); ; time.Sleep(100 * time.Millisecond) {
		var a, b int64
		for digest, at := range map[string]*int64{later: &a, earlier: &b} {
			if err := db.QueryRow("SELECT used_at FROM proxy_manifests WHERE repository = $1 AND digest = $2", k.name+"/"+app, digest).Scan(at); err != nil {
				k.t.Fatal(err)
			}
		}
		if a > b {
			return
		}
		if time.Now().After(end) {
			k.t.Fatalf("a use was not noted:\n%s", k.dump())
		}
	}
}

// small makes a folder a file system of its own of 64 MiB.
func small(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatalf("mount a small tmpfs (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// 30: the disk is full: of the whole store, or of a replica's scratch. What is
// pulled comes whole, and nothing half stays.
func TestProxyDiskFull(t *testing.T) {
	t.Run("one process", func(t *testing.T) {
		diskFull(t, 1, func(t *testing.T, dir, config string) *caching {
			small(t, dir)
			return oneProcess(t, filepath.Join(dir, "data"), config)
		})
	})
	t.Run("replicas", func(t *testing.T) {
		diskFull(t, 2, func(t *testing.T, dir, config string) *caching {
			small(t, filepath.Join(dir, "berth-1"))
			small(t, filepath.Join(dir, "berth-2"))
			return twoReplicas(t, dir, config)
		})
	})
}

func diskFull(t *testing.T, replicas int, begin func(t *testing.T, dir, config string) *caching) {
	k := &cacheCheck{t: t, name: "c30", specs: map[string]spec{}, later: map[string]spec{}}
	up := k.upstream(fresh())
	warm, cold := up.AddImage(app, "warm", 3000, 1<<20), up.AddImage(app, "cold", 3001, 24<<20)
	dir := roomFor(t)
	k.c = begin(t, dir, proxies(k.specs))
	k.client = k.c.inTurn()
	k.repo().same("warm", warm.Digest)

	fillers := []string{filepath.Join(dir, "filler")}
	if replicas == 2 {
		fillers = []string{filepath.Join(dir, "berth-1", "filler"), filepath.Join(dir, "berth-2", "filler")}
	}
	for _, filler := range fillers {
		fill(t, filler, 8<<20)
	}
	for range 2 { // at each replica
		up.Forget()
		k.repo().same("cold", cold.Digest)
		if up.Count(upstreamtest.Blob, "GET") == 0 && replicas == 1 {
			t.Fatal("the large layer was kept: the disk was not full, and nothing was tested")
		}
	}
	k.repo().same("warm", warm.Digest)
	for _, filler := range fillers { // not a byte more
		fill(t, filler, 0)
	}
	colder := up.AddImage(app, "colder", 3002, 2<<20)
	for range 2 {
		k.repo().same("colder", colder.Digest)
	}
	k.repo().same("warm", warm.Digest)
	for _, filler := range fillers {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		k.repo().same("cold", cold.Digest)
		k.repo().same("colder", colder.Digest)
	}
	up.Stop()
	for range 2 { // now all of it is kept
		k.repo().same(cold.Digest, cold.Digest)
		k.repo().same(colder.Digest, colder.Digest)
	}
	if replicas == 1 {
		k.c.stop(t)
		if out, err := check(filepath.Join(dir, "data"), "--deep"); err != nil {
			t.Fatalf("berth check: %v\n%s", err, out)
		}
	}
}
