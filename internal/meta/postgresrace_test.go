package meta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/pgtest"
)

var schemaOnly = pgtest.Template{Fill: func(url string) error {
	db, err := Open(context.Background(), Options{Postgres: url})
	if err != nil {
		return err
	}
	return db.Close()
}}

// replicas opens one database n times.
func replicas(t *testing.T, n int) []*DB {
	t.Helper()
	url := schemaOnly.Database(t)
	all := make([]*DB, n)
	for i := range all {
		db, err := Open(t.Context(), Options{Postgres: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		all[i] = db
	}
	return all
}

// during runs first in an open transaction of db, and second, elsewhere, while
// it is open; it ends as soon as second waits for it or has ended. The errors
// are those of the two.
func during(t *testing.T, db *DB, first func(*tx) error, second func() error) (error, error) {
	t.Helper()
	done := make(chan struct{})
	var result error
	var once sync.Once // fn may run again
	err := db.engine.write(t.Context(), durable, func(t *tx) error {
		if err := first(t); err != nil {
			return err
		}
		once.Do(func() {
			go func() {
				defer close(done)
				result = second()
			}()
		})
		select {
		case <-done:
		case <-time.After(300 * time.Millisecond): // it waits, for this or for nothing
		}
		return nil
	})
	if err == nil {
		<-done
	}
	return err, result
}

func pushTo(t *testing.T, db *DB, repo, name string) oci.Digest {
	t.Helper()
	d, err := tryPush(t.Context(), db, repo, name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func tryPush(ctx context.Context, db *DB, repo, name string) (oci.Digest, error) {
	d := oci.SHA256.FromBytes([]byte(name))
	id := newID()
	if err := db.CreateUpload(ctx, Upload{ID: id, Repository: repo, Algorithm: oci.SHA256, Size: int64(len(name)), Hash: []byte{}}); err != nil {
		return d, err
	}
	u, err := db.LeaseUpload(ctx, repo, id, time.Minute)
	if err != nil {
		return d, err
	}
	_, err = db.CommitBlob(ctx, u, d)
	return d, err
}

func manifestOf(repo, name string, sparse bool, blobs ...oci.Digest) PutManifest {
	p := PutManifest{Repository: repo, Digest: oci.SHA256.FromBytes([]byte(name)), Content: []byte(name), Parsed: &oci.Manifest{MediaType: oci.MediaTypeImage}, AllowMissing: sparse}
	for _, d := range blobs {
		p.Parsed.Blobs = append(p.Parsed.Blobs, oci.Descriptor{Digest: d, Size: 1})
	}
	return p
}

// count runs a query of one number.
func count(t *testing.T, db *DB, query string, args ...any) (n int) {
	t.Helper()
	if err := db.queryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// wantWhole checks what holds whatever happened.
func wantWhole(t *testing.T, db *DB) {
	t.Helper()
	wantAllCounted(t, db)
	for what, query := range map[string]string{
		"blobs that nothing links":                     `SELECT count(*) FROM blobs WHERE digest NOT IN (SELECT digest FROM links)`,
		"links that nothing holds and nobody looks at": `SELECT count(*) FROM links l WHERE review_at IS NULL AND NOT EXISTS (SELECT 1 FROM blob_references b WHERE b.repository_id = l.repository_id AND b.digest = l.digest)`,
		"manifests that nothing holds and nobody looks at": `SELECT count(*) FROM manifests m WHERE NOT EXISTS (SELECT 1 FROM manifest_reviews v WHERE v.repository_id = m.repository_id AND v.digest = m.digest)
			AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = m.repository_id AND t.digest = m.digest)
			AND NOT EXISTS (SELECT 1 FROM manifest_references h WHERE h.repository_id = m.repository_id AND h.digest = m.digest)
			AND NOT EXISTS (SELECT 1 FROM manifests s WHERE s.repository_id = m.repository_id AND s.digest = m.subject)`,
		"waiting references to blobs that are there":    `SELECT count(*) FROM pending_references p JOIN links l ON l.repository_id = p.repository_id AND l.digest = p.digest JOIN blobs b ON b.digest = l.digest WHERE p.kind = 'blob'`,
		"waiting references to manifests there are":     `SELECT count(*) FROM pending_references p JOIN manifests m ON m.repository_id = p.repository_id AND m.digest = p.digest WHERE p.kind = 'manifest'`,
		"dead objects that are alive":                   `SELECT count(*) FROM dead_objects d JOIN blobs b ON b.key = d.key`,
		"repositories with another name than a project": `SELECT count(*) FROM repositories r JOIN projects p ON p.id = r.project_id WHERE r.name <> p.name AND substr(r.name, 1, length(p.name) + 1) <> p.name || '/' AND p.deleted_at IS NULL`,
	} {
		if n := count(t, db, query); n != 0 {
			t.Errorf("%d %s", n, what)
		}
	}
}

// TestRaceLastLinks: of two that remove the last two links of a blob at once,
// the second removes the blob.
func TestRaceLastLinks(t *testing.T) {
	all := replicas(t, 2)
	d := pushTo(t, all[0], "team/one", "blob")
	pushTo(t, all[0], "crew/two", "blob")
	err, other := during(t, all[0], func(t *tx) error {
		var p place
		if err := t.queryRow(`SELECT id, project_id FROM repositories WHERE name = $1`, "team/one").Scan(&p.id, &p.project); err != nil {
			return err
		}
		return all[0].unlink(t, p, d, 1<<62)
	}, func() error { return all[1].DeleteBlob(t.Context(), "crew/two", d) })
	if err != nil || other != nil {
		t.Fatal(err, other)
	}
	if n := count(t, all[0], `SELECT count(*) FROM blobs`); n != 0 {
		t.Error("the blob is left without a link")
	}
	wantWhole(t, all[0])
}

// TestRaceCollectAndTouch: a client that is told of a blob while collection
// looks at its link finds it there afterwards, or is told that it is not.
func TestRaceCollectAndTouch(t *testing.T) {
	all := replicas(t, 2)
	d := pushTo(t, all[0], "team/app", "blob")
	soon := time.Now().Add(time.Second)
	err, other := during(t, all[0], func(t *tx) error {
		_, err := t.exec(`UPDATE links SET seen_at = $1`, soon.Add(time.Minute).UnixMilli())
		return err
	}, func() error {
		_, _, err := all[1].CollectLinks(t.Context(), soon, 10)
		return err
	})
	if err != nil || other != nil {
		t.Fatal(err, other)
	}
	if _, err := all[0].Blob(t.Context(), "team/app", d); err != nil {
		t.Errorf("the blob that a client was told of: %v", err)
	}
	err, other = during(t, all[0], func(t *tx) error {
		var p place
		if err := t.queryRow(`SELECT id, project_id FROM repositories WHERE name = $1`, "team/app").Scan(&p.id, &p.project); err != nil {
			return err
		}
		return all[0].unlink(t, p, d, 1<<62)
	}, func() error { return all[1].TouchBlob(t.Context(), "team/app", d) })
	if err != nil || !errors.Is(other, ErrNotFound) {
		t.Errorf("collect: %v; touch: %v, want it not found", err, other)
	}
	wantWhole(t, all[0])
}

// TestRaceCollectAndLetGo: a link whose last holder goes while collection finds
// it held is looked at again.
func TestRaceCollectAndLetGo(t *testing.T) {
	all := replicas(t, 2)
	m := manifestOf("team/app", "m", false, pushTo(t, all[0], "team/app", "blob"))
	if err := all[0].PutManifest(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Second).UnixMilli()
	err, other := during(t, all[0], func(t *tx) error {
		var l linkRow
		if err := t.queryRow(`SELECT r.id, r.project_id, l.digest, l.seen_at FROM links l JOIN repositories r ON r.id = l.repository_id`).
			Scan(&l.id, &l.project, &l.digest, &l.seenAt); err != nil {
			return err
		}
		_, err := all[0].reviewLink(t, l, soon, true)
		return err
	}, func() error { return all[1].DeleteManifest(t.Context(), "team/app", m.Digest) })
	if err != nil || other != nil {
		t.Fatal(err, other)
	}
	wantWhole(t, all[0])
	if removed, _, err := all[0].CollectLinks(t.Context(), time.Now().Add(time.Minute), 10); err != nil || removed != 1 {
		t.Errorf("collection removes %d, %v; want the link", removed, err)
	}
}

// TestRacePushAndDelete: what a manifest that is being pushed holds is not
// deleted under it, nor held after it has been deleted.
func TestRacePushAndDelete(t *testing.T) {
	all := replicas(t, 2)
	d := pushTo(t, all[0], "team/app", "blob")
	m := manifestOf("team/app", "m", false, d)
	put := func(t *tx) error { return all[0].putManifest(t, "", m) }
	var held *ReferencedError
	err, other := during(t, all[0], put, func() error { return all[1].DeleteBlob(t.Context(), "team/app", d) })
	if err != nil || !errors.As(other, &held) {
		t.Errorf("put: %v, delete: %v, want it refused", err, other)
	}
	if err := all[0].DeleteManifest(t.Context(), "team/app", m.Digest); err != nil {
		t.Fatal(err)
	}
	var missing *MissingError
	err, other = during(t, all[0], func(t *tx) error {
		var p place
		if err := t.queryRow(`SELECT id, project_id FROM repositories WHERE name = $1`, "team/app").Scan(&p.id, &p.project); err != nil {
			return err
		}
		return all[0].unlink(t, p, d, 1<<62)
	}, func() error { return all[1].PutManifest(t.Context(), m) })
	if err != nil || !errors.As(other, &missing) {
		t.Errorf("delete: %v, put: %v, want it refused", err, other)
	}
	wantWhole(t, all[0])
}

// TestRaceCommitAndDelete: a blob that is pushed again while its last link goes
// is there afterwards, with the new bytes.
func TestRaceCommitAndDelete(t *testing.T) {
	all := replicas(t, 2)
	d := pushTo(t, all[0], "team/one", "blob")
	err, other := during(t, all[0], func(t *tx) error {
		var p place
		if err := t.queryRow(`SELECT id, project_id FROM repositories WHERE name = $1`, "team/one").Scan(&p.id, &p.project); err != nil {
			return err
		}
		return all[0].unlink(t, p, d, 1<<62)
	}, func() error { _, err := tryPush(t.Context(), all[1], "team/two", "blob"); return err })
	if err != nil || other != nil {
		t.Fatal(err, other)
	}
	b, err := all[0].Blob(t.Context(), "team/two", d)
	if err != nil {
		t.Fatal(err)
	}
	if kind, _, err := all[0].KeyOwner(t.Context(), b.Key); err != nil || kind != "blob" {
		t.Errorf("its bytes belong to %q, %v", kind, err)
	}
	wantWhole(t, all[0])
}

// TestRaceSparse: a blob that comes while a manifest that names it is stored
// without it is held by that manifest. It was in the project before, so that
// the storage it uses does not change.
func TestRaceSparse(t *testing.T) {
	all := replicas(t, 2)
	d := pushTo(t, all[0], "team/other", "blob")
	pushTo(t, all[0], "team/app", "any")
	m := manifestOf("team/app", "m", true, d)
	err, other := during(t, all[0], func(t *tx) error {
		return all[0].putManifest(t, "", m)
	}, func() error { _, err := all[1].Mount(t.Context(), "team/app", "team/other", d); return err })
	if err != nil || other != nil {
		t.Fatal(err, other)
	}
	wantWhole(t, all[0])
	var held *ReferencedError
	if err := all[0].DeleteBlob(t.Context(), "team/app", d); !errors.As(err, &held) {
		t.Errorf("delete what a manifest holds: %v", err)
	}
}

// TestRaceRename: a repository that comes into being while its project is
// renamed or deleted does not stay behind.
func TestRaceRename(t *testing.T) {
	all := replicas(t, 2)
	pushTo(t, all[0], "team/app", "blob")
	p, err := all[0].Project(t.Context(), "team")
	if err != nil {
		t.Fatal(err)
	}
	err, other := during(t, all[0], func(t *tx) error {
		if _, err := t.exec(`UPDATE projects SET name = $2 WHERE id = $1`, p.ID, "crew"); err != nil {
			return err
		}
		return moveRepositories(t, p.ID, "team", "crew")
	}, func() error { _, err := tryPush(t.Context(), all[1], "team/new", "blob"); return err })
	if err != nil || other != nil {
		t.Fatal(err, other)
	}
	wantWhole(t, all[0])
	err, other = during(t, all[0], func(t *tx) error {
		if _, err := t.exec(`UPDATE projects SET deleted_at = 1 WHERE id = $1`, p.ID); err != nil {
			return err
		}
		return moveRepositories(t, p.ID, "crew", hidden+"crew")
	}, func() error { _, err := tryPush(t.Context(), all[1], "crew/new", "blob"); return err })
	if err != nil || !errors.Is(other, ErrNoRepository) {
		t.Errorf("delete: %v; push into the deleted project: %v", err, other)
	}
	wantWhole(t, all[0])
}

// TestRaceExpiry: a session that somebody comes back to while it expires stays.
func TestRaceExpiry(t *testing.T) {
	all := replicas(t, 2)
	if err := all[0].CreateUpload(t.Context(), Upload{ID: "s", Repository: "team/app", Algorithm: oci.SHA256, Hash: []byte{}}); err != nil {
		t.Fatal(err)
	}
	soon := time.Now().Add(time.Minute)
	err, other := during(t, all[0], func(t *tx) error {
		_, err := t.exec(`UPDATE uploads SET version = version + 1, lease_until = $1`, soon.UnixMilli())
		return err
	}, func() error {
		n, err := all[1].ExpireUploads(t.Context(), soon, 10)
		if n != 0 {
			err = errors.Join(err, fmt.Errorf("%d sessions expire", n))
		}
		return err
	})
	if err != nil || other != nil {
		t.Error(err, other)
	}
	if _, err := all[0].Upload(t.Context(), "team/app", "s"); err != nil {
		t.Errorf("the session: %v", err)
	}
}

// TestRaceDamaged: of two that bring a damaged blob again, one is kept, and the
// other's bytes are dead.
func TestRaceDamaged(t *testing.T) {
	all := replicas(t, 2)
	d := pushTo(t, all[0], "team/app", "blob")
	b, err := all[0].Blob(t.Context(), "team/app", d)
	if err != nil {
		t.Fatal(err)
	}
	if err := all[0].MarkDamaged(t.Context(), CheckedBlob{Digest: d, Key: b.Key}); err != nil {
		t.Fatal(err)
	}
	err, other := during(t, all[0], func(t *tx) error {
		_, err := all[0].insertBlob(t, d, Upload{ID: "first", Size: 4})
		return err
	}, func() error { _, err := tryPush(t.Context(), all[1], "team/app", "blob"); return err })
	if err != nil || other != nil {
		t.Fatal(err, other)
	}
	if b, err := all[0].Blob(t.Context(), "team/app", d); err != nil || b.Key != "first" {
		t.Errorf("the blob is %+v, %v; want that of the first", b, err)
	}
	if n := count(t, all[0], `SELECT count(*) FROM dead_objects`); n != 2 {
		t.Errorf("%d dead objects, want the damaged and the second", n)
	}
}

// TestRacesOfManagement: what one may do, two replicas do not do both.
func TestRacesOfManagement(t *testing.T) {
	all := replicas(t, 2)
	both := func(f func(i int, db *DB) error) (succeeded int, errs []error) {
		errs = make([]error, 16)
		var wait sync.WaitGroup
		for i := range errs {
			wait.Go(func() { errs[i] = f(i, all[i%2]) })
		}
		wait.Wait()
		for _, err := range errs {
			if err == nil {
				succeeded++
			}
		}
		return succeeded, errs
	}
	if n, errs := both(func(i int, db *DB) error {
		_, err := db.CreateUser(t.Context(), Change{}, UserSpec{Name: fmt.Sprint("user", i)})
		return err
	}); n != 16 {
		t.Fatal(errors.Join(errs...))
	}
	if n := count(t, all[0], `SELECT count(*) FROM users WHERE admin`); n != 1 {
		t.Errorf("%d users are the first", n)
	}
	yes, no := true, false
	for i := range 16 {
		if err := all[0].SetUser(t.Context(), Change{}, fmt.Sprint("user", i), UserChange{Admin: &yes}); err != nil {
			t.Fatal(err)
		}
	}
	n, errs := both(func(i int, db *DB) error {
		return db.SetUser(t.Context(), Change{}, fmt.Sprint("user", i), UserChange{Admin: &no})
	})
	for _, err := range errs {
		if err != nil && !errors.Is(err, ErrLastAdmin) {
			t.Error(err)
		}
	}
	if n != 15 {
		t.Errorf("%d of 16 admins gave it up", n)
	}
	won := 0
	var mu sync.Mutex
	if _, errs := both(func(i int, db *DB) error {
		u, err := db.User(t.Context(), fmt.Sprint("user", i))
		if err != nil {
			return err
		}
		mine, err := db.ClaimProject(t.Context(), "team", u.ID)
		mu.Lock()
		defer mu.Unlock()
		if mine {
			won++
		}
		return err
	}); errors.Join(errs...) != nil || won != 1 {
		t.Errorf("%d users claimed one project, %v", won, errors.Join(errs...))
	}
	again := 0
	if _, errs := both(func(_ int, db *DB) error {
		_, err := db.CreateProject(t.Context(), Change{Once: &Once{ID: "k", Request: "r", Answer: []byte("a")}}, ProjectSpec{Name: "once", Visibility: access.Private})
		var repeated *RepeatedError
		mu.Lock()
		defer mu.Unlock()
		if errors.As(err, &repeated) {
			again++
			err = nil
		}
		return err
	}); errors.Join(errs...) != nil || again != 15 {
		t.Errorf("%d of 16 requests were answered before, %v", again, errors.Join(errs...))
	}
	rotated := 0
	if _, errs := both(func(i int, db *DB) error {
		mine, err := db.RotateSigningKey(t.Context(), access.SigningKey{ID: fmt.Sprint("key", i), Algorithm: "x", Private: []byte{1}}, time.Now().Add(-time.Hour))
		mu.Lock()
		defer mu.Unlock()
		if mine {
			rotated++
		}
		return err
	}); errors.Join(errs...) != nil || rotated != 1 {
		t.Errorf("%d keys were made, %v", rotated, errors.Join(errs...))
	}
	if a, b := catchUp(t, all[0]), catchUp(t, all[1]); a != b {
		t.Errorf("generations %d and %d", a, b)
	}
}

func catchUp(t *testing.T, db *DB) int64 {
	t.Helper()
	if err := db.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	g, err := db.Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestRaceQuota: replicas that push at once do not go beyond a quota together.
func TestRaceQuota(t *testing.T) {
	all := replicas(t, 2)
	storage := int64(100)
	if err := all[0].SetPlan(t.Context(), Change{}, "default", PlanChange{Storage: &storage}); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for i := range 40 {
		wait.Go(func() {
			_, err := tryPush(t.Context(), all[i%2], fmt.Sprint("team/app", i%3), fmt.Sprintf("%010d", i))
			var quota *QuotaError
			if err != nil && !errors.As(err, &quota) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if p, err := all[0].Project(t.Context(), "team"); err != nil || p.Storage != storage {
		t.Errorf("the project uses %d, %v; want the quota of %d", p.Storage, err, storage)
	}
	wantWhole(t, all[0])
}

// TestRaceEverything has clients of two replicas push, mount, tag, delete and
// collect the same few things, and looks whether all is whole at the end.
func TestRaceEverything(t *testing.T) {
	all := replicas(t, 2)
	end := time.Now().Add(4 * time.Second)
	if testing.Short() {
		end = time.Now().Add(time.Second)
	}
	var wait sync.WaitGroup
	for c := range 12 {
		wait.Go(func() {
			db, other := all[c%2], all[(c+1)%2]
			for i := 0; time.Now().Before(end); i++ {
				repo := fmt.Sprintf("team%d/app%d", i%2, (i+c)%3)
				name := fmt.Sprint("blob", (i*7+c)%5)
				for _, err := range churn(t.Context(), db, other, c, i, repo, name) {
					if err != nil {
						t.Errorf("client %d, round %d: %v", c, i, err)
						return
					}
				}
			}
		})
	}
	wait.Wait()
	wantWhole(t, all[0])
}

// churn does one thing and returns the errors that it may not have.
func churn(ctx context.Context, db, other *DB, c, i int, repo, name string) []error {
	expect := func(err error, known ...error) error {
		var held *ReferencedError
		var missing *MissingError
		if errors.As(err, &held) || errors.As(err, &missing) || strings.Contains(fmt.Sprint(err), "context canceled") {
			return nil
		}
		for _, k := range known {
			if errors.Is(err, k) {
				return nil
			}
		}
		return err
	}
	d := oci.SHA256.FromBytes([]byte(name))
	m := manifestOf(repo, "m"+name, i%4 == 0, d)
	switch (i + c) % 11 {
	case 0, 1, 2:
		_, err := tryPush(ctx, db, repo, name)
		if i%3 > 0 {
			m.Tags = []string{fmt.Sprint("t", i%3)}
		}
		return []error{err, expect(other.PutManifest(ctx, m))}
	case 8:
		index := manifestOf(repo, "i"+name, i%2 == 0)
		index.Parsed.Manifests = []oci.Descriptor{{Digest: m.Digest}}
		if d := oci.SHA256.FromBytes([]byte(fmt.Sprint("mblob", i%5))); d != m.Digest {
			index.Parsed.Manifests = append(index.Parsed.Manifests, oci.Descriptor{Digest: d})
		}
		return []error{expect(db.PutManifest(ctx, index)), expect(other.DeleteManifest(ctx, repo, index.Digest), ErrNotFound, ErrNoRepository)}
	case 9:
		referrer := manifestOf(repo, "r"+name, true)
		referrer.Parsed.Subject = &oci.Descriptor{Digest: m.Digest}
		return []error{expect(db.PutManifest(ctx, referrer)), expect(other.TouchManifest(ctx, repo, m.Digest), ErrNotFound)}
	case 10:
		keep := Retention{Untagged: time.Duration(i%20) * time.Millisecond, Orphans: time.Millisecond}
		_, err := db.CollectManifests(ctx, func(string) Retention { return keep }, time.Now(), 20)
		return []error{err}
	case 3:
		_, err := db.Mount(ctx, repo, "", d)
		return []error{expect(err, ErrNotFound)}
	case 4:
		return []error{expect(db.DeleteManifest(ctx, repo, m.Digest), ErrNotFound, ErrNoRepository)}
	case 5:
		return []error{expect(db.DeleteBlob(ctx, repo, d), ErrNotFound, ErrNoRepository)}
	case 6:
		_, _, err := db.CollectLinks(ctx, time.Now().Add(time.Second), 5)
		return []error{err}
	}
	return []error{expect(db.TouchBlob(ctx, repo, d), ErrNotFound), expect(db.DeleteTag(ctx, repo, fmt.Sprint("t", i%3)), ErrNotFound, ErrNoRepository)}
}

// TestRaceFirstPushes: of two that are the first to put something into a
// project at once, into one repository or two, neither is told of a limit.
func TestRaceFirstPushes(t *testing.T) {
	for _, name := range []string{"team/one", "team/two"} {
		t.Run(name, func(t *testing.T) {
			all := replicas(t, 2)
			made := all[0].change(t.Context(), func(t *tx) error { // as for whoever claims it
				_, err := all[0].projectPlace(t, "team")
				return err
			})
			if made != nil {
				t.Fatal(made)
			}
			err, other := during(t, all[0], func(t *tx) error {
				_, err := all[0].place(t, "team/one")
				return err
			}, func() error {
				_, err := tryPush(t.Context(), all[1], name, "blob")
				return err
			})
			if err != nil || other != nil {
				t.Fatal(err, other)
			}
			wantAllCounted(t, all[0])
		})
	}
}
