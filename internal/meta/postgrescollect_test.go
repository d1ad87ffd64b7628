package meta

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/oci"
)

// between runs first in a transaction, then second elsewhere until it has ended
// or the server says that it waits for a lock, and then lets the transaction
// end. The errors are those of the two.
func between(t *testing.T, db *DB, first func(*tx) error, second func() error) (error, error) {
	t.Helper()
	return amid(t, db, first, second, func(*tx) error { return nil })
}

// amid is between with more to do in the transaction before it ends.
func amid(t *testing.T, db *DB, first func(*tx) error, second func() error, rest func(*tx) error) (error, error) {
	t.Helper()
	done := make(chan error, 1)
	started := false // fn may run again
	err := db.engine.write(t.Context(), durable, func(in *tx) error {
		if err := first(in); err != nil {
			return err
		}
		if started {
			return rest(in)
		}
		started = true
		ended := make(chan struct{})
		go func() {
			err := second()
			close(ended)
			done <- err
		}()
		for {
			select {
			case <-ended:
				return rest(in)
			case <-time.After(2 * time.Millisecond):
			}
			if waits(t, db) {
				return rest(in)
			}
		}
	})
	if !started {
		return err, nil
	}
	return err, <-done
}

// waits reports whether somebody waits for a lock in this database.
func waits(t *testing.T, db *DB) bool {
	return count(t, db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
}

const raced = "team/app"

func everyTime(string) Retention {
	return Retention{Untagged: time.Millisecond, Orphans: time.Millisecond}
}

// race is one database with two replicas, and a manifest that is due.
type race struct {
	*testing.T
	here, there *DB
	blob        oci.Digest
	soon        time.Time // when all is due
}

func newRace(t *testing.T) *race {
	all := replicas(t, 2)
	r := &race{T: t, here: all[0], there: all[1], soon: time.Now().Add(time.Hour)}
	r.blob = pushTo(t, r.here, raced, "blob")
	return r
}

func (r *race) put(p PutManifest, tags ...string) oci.Digest {
	r.Helper()
	p.Tags = tags
	if err := r.here.PutManifest(r.Context(), p); err != nil {
		r.Fatal(err)
	}
	return p.Digest
}

func (r *race) image(name string) PutManifest { return manifestOf(raced, name, true, r.blob) }

func (r *race) index(name string, children ...oci.Digest) PutManifest {
	p := manifestOf(raced, name, false)
	for _, d := range children {
		p.Parsed.Manifests = append(p.Parsed.Manifests, oci.Descriptor{Digest: d})
	}
	return p
}

func (r *race) referrer(name string, subject oci.Digest) PutManifest {
	p := r.image(name)
	p.Parsed.Subject = &oci.Descriptor{Digest: subject}
	return p
}

// row reads how a manifest is noted, which it must be.
func (r *race) row(d oci.Digest) LooseManifest {
	r.Helper()
	list, err := r.here.LooseManifests(r.Context(), "", "", 1000)
	if err != nil {
		r.Fatal(err)
	}
	for _, m := range list {
		if m.Digest == d {
			return m
		}
	}
	r.Fatalf("no look at %s is planned", d)
	return LooseManifest{}
}

// removing is collection that has found d due.
func (r *race) removing(d oci.Digest) func(*tx) error {
	r.Helper()
	m := r.row(d)
	return func(t *tx) error {
		if err := lockUsage(t, m.project); err != nil {
			return err
		}
		got, err := review{r.here, everyTime, r.soon.UnixMilli()}.remove(t, m)
		if err == nil && got.Removed != 1 {
			err = errors.New("the manifest is not removed")
		}
		return err
	}
}

// settling is collection that has found that d stays.
func (r *race) settling(d oci.Digest) func(*tx) error {
	r.Helper()
	m := r.row(d)
	return func(t *tx) error {
		_, err := review{r.here, everyTime, r.soon.UnixMilli()}.settle(t, m)
		return err
	}
}

// collect is all of it, on the other replica.
func (r *race) collect() error {
	for range 3 {
		if _, err := r.there.CollectManifests(r.Context(), everyTime, r.soon, 100); err != nil {
			return err
		}
	}
	return nil
}

func (r *race) stored(d oci.Digest) bool {
	_, err := r.here.Resolve(r.Context(), raced, oci.DigestRef(d))
	if err != nil && !errors.Is(err, ErrNotFound) {
		r.Error(err)
	}
	return err == nil
}

func (r *race) want(d oci.Digest, there bool) {
	r.Helper()
	if got := r.stored(d); got != there {
		r.Errorf("the manifest is there: %t, want %t", got, there)
	}
	wantWhole(r.T, r.here)
}

// run makes the two meet and wants the errors.
func (r *race) run(first func(*tx) error, second func() error, wantFirst, wantSecond error) {
	r.Helper()
	one, two := between(r.T, r.here, first, second)
	if !errors.Is(one, wantFirst) || !errors.Is(two, wantSecond) {
		r.Errorf("the first ends with %v, the second with %v; want %v and %v", one, two, wantFirst, wantSecond)
	}
}

func (r *race) putting(p PutManifest, tags ...string) func(*tx) error {
	p.Tags = tags
	return func(t *tx) error { return r.here.putManifest(t, "", p) }
}

func (r *race) puts(p PutManifest, tags ...string) func() error {
	p.Tags = tags
	return func() error { return r.there.PutManifest(r.Context(), p) }
}

// TestRaceCollectAndTag: a manifest that is tagged stays, and is there when its
// push has been answered.
func TestRaceCollectAndTag(t *testing.T) {
	t.Run("tagged first", func(t *testing.T) {
		r := newRace(t)
		m := r.put(r.image("m"))
		r.run(r.putting(r.image("m"), "v1"), r.collect, nil, nil)
		r.want(m, true)
	})
	t.Run("collected first", func(t *testing.T) {
		r := newRace(t)
		m := r.put(r.image("m"))
		r.run(r.removing(m), r.puts(r.image("m"), "v1"), nil, nil)
		r.want(m, true)
	})
}

// TestRaceTagInTheMiddle: a tag that comes after collection has seen that there
// is none, and before it removes the manifest, keeps it.
func TestRaceTagInTheMiddle(t *testing.T) {
	r := newRace(t)
	m := r.put(r.image("m"))
	row := r.row(m)
	tries := 0
	err := r.here.engine.write(t.Context(), durable, func(in *tx) error {
		tries++
		v := review{r.here, everyTime, r.soon.UnixMilli()}
		if _, err := v.again(in, row); err != nil {
			return err
		}
		if tries == 1 {
			p := r.image("m")
			p.Tags = []string{"v1"}
			if err := r.there.PutManifest(t.Context(), p); err != nil {
				t.Error(err)
			}
			// What remove does from here on, with what it knows.
			_, err := r.here.takeOut(in, place{id: row.RepositoryID, project: row.project}, m)
			if err == nil {
				t.Error("a manifest is removed from under its tag")
			}
			return err
		}
		_, err := v.remove(in, row)
		return err
	})
	if err != nil || tries < 2 {
		t.Errorf("after %d tries: %v", tries, err)
	}
	r.want(m, true)
}

// TestRaceCollectAndPutAgain: so does one that is put again without a tag.
func TestRaceCollectAndPutAgain(t *testing.T) {
	t.Run("put first", func(t *testing.T) {
		r := newRace(t)
		m := r.put(r.image("m"))
		r.soon = time.Now().Add(-time.Minute) // due only by what was noted before
		if _, err := r.here.writeRow(t, `UPDATE manifest_reviews SET since = 1, review_at = 1`); err != nil {
			t.Fatal(err)
		}
		r.run(r.putting(r.image("m")), r.collect, nil, nil)
		r.want(m, true)
	})
	t.Run("collected first", func(t *testing.T) {
		r := newRace(t)
		m := r.put(r.image("m"))
		r.run(r.removing(m), r.puts(r.image("m")), nil, nil)
		r.want(m, true)
	})
	t.Run("put between look and removal", func(t *testing.T) {
		r := newRace(t)
		m := r.put(r.image("m"))
		row := r.row(m)
		v := review{r.here, everyTime, r.soon.UnixMilli()}
		one, two := amid(t, r.here, func(in *tx) error {
			_, err := v.again(in, row)
			return err
		}, r.puts(r.image("m")), func(in *tx) error {
			_, err := v.remove(in, row)
			return err
		})
		if one != nil || two != nil {
			t.Errorf("collection: %v; put: %v", one, two)
		}
		r.want(m, true)
	})
}

// writeRow changes rows as no verb does.
func (db *DB) writeRow(t *testing.T, query string, args ...any) (n int64, err error) {
	err = db.update(t.Context(), func(t *tx) error {
		n, err = t.exec(query, args...)
		return err
	})
	return n, err
}

// TestRaceCollectAndIndex: a child stays when its index is pushed, or the push
// is told that it is not there.
func TestRaceCollectAndIndex(t *testing.T) {
	t.Run("index first", func(t *testing.T) {
		r := newRace(t)
		child := r.put(r.image("child"))
		r.run(r.putting(r.index("i", child), "v1"), r.collect, nil, nil)
		r.want(child, true)
	})
	t.Run("collected first", func(t *testing.T) {
		r := newRace(t)
		child := r.put(r.image("child"))
		one, two := between(t, r.here, r.removing(child), r.puts(r.index("i", child), "v1"))
		var missing *MissingError
		if one != nil || !errors.As(two, &missing) {
			t.Errorf("collection: %v; push of the index: %v, want it refused", one, two)
		}
		r.want(child, false)
	})
}

// TestRaceCollectAndAsk: a client that is told of a manifest by its digest finds
// it there afterwards, or is told that it is not.
func TestRaceCollectAndAsk(t *testing.T) {
	t.Run("asked first", func(t *testing.T) {
		r := newRace(t)
		m := r.put(r.image("m"))
		r.run(func(in *tx) error {
			_, err := in.exec(`UPDATE manifest_reviews SET since = $1`, r.soon.Add(time.Minute).UnixMilli())
			return err
		}, r.collect, nil, nil)
		r.want(m, true)
	})
	t.Run("collected first", func(t *testing.T) {
		r := newRace(t)
		m := r.put(r.image("m"))
		r.run(r.removing(m), func() error { return r.there.TouchManifest(t.Context(), raced, m) }, nil, ErrNotFound)
		r.want(m, false)
	})
}

// TestRaceLookAndLoss: what loses the last that held it while collection finds
// it held is looked at again.
func TestRaceLookAndLoss(t *testing.T) {
	for name, c := range map[string]struct {
		fill func(r *race) (m oci.Digest)
		loss func(ctx context.Context, db *DB) error
		lose func(r *race) func(*tx) error
	}{
		"tag deleted": {
			func(r *race) oci.Digest { r.put(r.image("m")); return r.put(r.image("m"), "v1") },
			func(ctx context.Context, db *DB) error { return db.DeleteTag(ctx, raced, "v1") },
			func(r *race) func(*tx) error {
				return func(t *tx) error {
					if _, err := t.exec(`DELETE FROM tags`); err != nil {
						return err
					}
					return r.here.planManifest(t, r.row(r.image("m").Digest).RepositoryID, r.image("m").Digest)
				}
			},
		},
		"tag moved": {
			func(r *race) oci.Digest { r.put(r.image("m")); return r.put(r.image("m"), "v1") },
			func(ctx context.Context, db *DB) error {
				p := manifestOf(raced, "n", true)
				p.Tags = []string{"v1"}
				return db.PutManifest(ctx, p)
			},
			func(r *race) func(*tx) error { return r.putting(manifestOf(raced, "n", true), "v1") },
		},
		"index deleted": {
			func(r *race) oci.Digest { m := r.put(r.image("m")); r.put(r.index("i", m), "v1"); return m },
			func(ctx context.Context, db *DB) error {
				return db.DeleteManifest(ctx, raced, oci.SHA256.FromBytes([]byte("i")))
			},
			func(r *race) func(*tx) error { return r.deleting("i") },
		},
		"subject deleted": {
			func(r *race) oci.Digest {
				return r.put(r.referrer("m", r.put(r.image("subject"), "v1")))
			},
			func(ctx context.Context, db *DB) error {
				return db.DeleteManifest(ctx, raced, oci.SHA256.FromBytes([]byte("subject")))
			},
			func(r *race) func(*tx) error { return r.deleting("subject") },
		},
	} {
		t.Run(name+"/looked at first", func(t *testing.T) {
			r := newRace(t)
			m := c.fill(r)
			r.run(r.settling(m), func() error { return c.loss(t.Context(), r.there) }, nil, nil)
			wantWhole(t, r.here)
			r.wantGone(m)
		})
		t.Run(name+"/lost first", func(t *testing.T) {
			r := newRace(t)
			m := c.fill(r)
			r.run(c.lose(r), func() error {
				_, err := r.there.CollectManifests(t.Context(), func(string) Retention { return Retention{} }, r.soon, 100)
				return err
			}, nil, nil)
			wantWhole(t, r.here)
			if _, err := r.here.writeRow(t, `UPDATE manifest_reviews SET review_at = 0`); err != nil {
				t.Fatal(err)
			}
			r.wantGone(m)
		})
	}
}

// deleting is the deletion of a manifest by a client.
func (r *race) deleting(name string) func(*tx) error {
	return func(t *tx) error {
		var p place
		if err := t.queryRow(`SELECT id, project_id FROM repositories WHERE name = $1`, raced).Scan(&p.id, &p.project); err != nil {
			return err
		}
		if err := lockUsage(t, p.project); err != nil {
			return err
		}
		if _, err := t.exec(`DELETE FROM tags`); err != nil {
			return err
		}
		_, err := r.here.takeOut(t, p, oci.SHA256.FromBytes([]byte(name)))
		return err
	}
}

// wantGone collects and wants a manifest to go.
func (r *race) wantGone(d oci.Digest) {
	r.Helper()
	if err := r.collect(); err != nil {
		r.Error(err)
	}
	r.want(d, false)
}

// TestRaceReferrer: a referrer that comes while its subject goes is looked at.
func TestRaceReferrer(t *testing.T) {
	for name, c := range map[string]func(r *race, subject oci.Digest){
		"subject first": func(r *race, subject oci.Digest) {
			r.run(r.deleting("subject"), r.puts(r.referrer("m", subject)), nil, nil)
		},
		"referrer first": func(r *race, subject oci.Digest) {
			r.run(r.putting(r.referrer("m", subject)), func() error { return r.there.DeleteManifest(r.Context(), raced, subject) }, nil, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRace(t)
			c(r, r.put(r.image("subject"), "v1"))
			m := r.referrer("m", "").Digest
			r.want(m, true)
			r.wantGone(m)
		})
	}
}

// TestRaceReferrerSeenBetween: a referrer that comes while its subject is being
// deleted, and is looked at before that deletion ends, is not taken for held.
func TestRaceReferrerSeenBetween(t *testing.T) {
	r := newRace(t)
	subject := r.put(r.image("subject"), "v1")
	r.run(r.deleting("subject"), func() error {
		if err := r.puts(r.referrer("m", subject))(); err != nil {
			return err
		}
		return r.collect()
	}, nil, nil)
	wantWhole(t, r.here)
	r.wantGone(r.referrer("m", "").Digest)
}

// TestRaceSubject: a subject that comes while its referrer goes.
func TestRaceSubject(t *testing.T) {
	for name, c := range map[string]func(r *race, m oci.Digest){
		"collected first": func(r *race, m oci.Digest) { r.run(r.removing(m), r.puts(r.image("subject"), "v1"), nil, nil) },
		"subject first":   func(r *race, _ oci.Digest) { r.run(r.putting(r.image("subject"), "v1"), r.collect, nil, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRace(t)
			m := r.put(r.referrer("m", r.image("subject").Digest))
			c(r, m)
			if !r.stored(r.image("subject").Digest) {
				t.Error("the subject is not there")
			}
			wantWhole(t, r.here)
		})
	}
}

// TestRaceCollectAndDelete: of two that remove a manifest one does, and what it
// used is given back once.
func TestRaceCollectAndDelete(t *testing.T) {
	t.Run("deleted first", func(t *testing.T) {
		r := newRace(t)
		m := r.put(r.image("m"))
		r.run(r.deleting("m"), r.collect, nil, nil)
		r.want(m, false)
	})
	t.Run("collected first", func(t *testing.T) {
		r := newRace(t)
		m := r.put(r.image("m"))
		r.run(r.removing(m), func() error { return r.there.DeleteManifest(t.Context(), raced, m) }, nil, ErrNotFound)
		r.want(m, false)
	})
	t.Run("two collections", func(t *testing.T) {
		r := newRace(t)
		m := r.put(r.image("m"))
		r.run(r.removing(m), r.collect, nil, nil)
		r.want(m, false)
	})
}

// TestRaceTagMoves: of two that move a tag at once, what the first gave it is
// looked at when the second has taken it away.
func TestRaceTagMoves(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		t.Run(fmt.Sprintf("new tag %t", fresh), func(t *testing.T) {
			r := newRace(t)
			if !fresh {
				r.put(r.image("old"), "v1")
			}
			one, two := r.image("one"), r.image("two")
			r.put(one, "other1")
			r.put(two, "other2")
			r.run(func(in *tx) error {
				return r.here.tag(in, r.id(), one.Digest, []string{"v1"})
			}, r.puts(two, "v1"), nil, nil)
			for _, tag := range []string{"other1", "other2"} {
				if err := r.here.DeleteTag(t.Context(), raced, tag); err != nil {
					t.Fatal(err)
				}
			}
			wantWhole(t, r.here)
			r.wantGone(one.Digest)
			r.want(two.Digest, true)
		})
	}
}

func (r *race) id() (id string) {
	r.Helper()
	if err := r.here.queryRow(r.Context(), `SELECT id FROM repositories WHERE name = $1`, raced).Scan(&id); err != nil {
		r.Fatal(err)
	}
	return id
}

// TestRaceLooseTagMoves is TestRaceTagMoves where nothing else holds what the
// first put, and no look at it is planned, so that only the second can plan one.
func TestRaceLooseTagMoves(t *testing.T) {
	r := newRace(t)
	r.put(r.image("old"), "v1")
	one, two := r.put(r.image("one")), r.put(r.image("two"))
	if _, err := r.here.writeRow(t, `DELETE FROM manifest_reviews`); err != nil { // as while they were held
		t.Fatal(err)
	}
	r.run(r.putting(r.image("one"), "v1"), r.puts(r.image("two"), "v1"), nil, nil)
	wantWhole(t, r.here)
	r.wantGone(one)
	r.want(two, true)
}

// TestRaceCollectAndProject: a project that is deleted, renamed or purged while
// one of its manifests is collected.
func TestRaceCollectAndProject(t *testing.T) {
	for name, end := range map[string]func(r *race, id string) error{
		"deleted": func(r *race, id string) error {
			_, err := r.there.DeleteProject(r.Context(), Change{}, id)
			return err
		},
		"renamed": func(r *race, id string) error { return r.there.RenameProject(r.Context(), Change{}, id, "crew") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRace(t)
			m := r.put(r.image("m"))
			p, err := r.here.Project(t.Context(), "team")
			if err != nil {
				t.Fatal(err)
			}
			r.run(r.removing(m), func() error { return end(r, p.ID) }, nil, nil)
			wantWhole(t, r.here)
			if n := count(t, r.here, `SELECT count(*) FROM manifests`); n != 0 {
				t.Errorf("%d manifests are left", n)
			}
		})
	}
	t.Run("purged", func(t *testing.T) {
		r := newRace(t)
		m := r.put(r.image("m"))
		row := r.row(m)
		p, err := r.here.Project(t.Context(), "team")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.here.DeleteProject(t.Context(), Change{}, p.ID); err != nil {
			t.Fatal(err)
		}
		r.run(func(in *tx) error {
			_, err := review{r.here, everyTime, r.soon.UnixMilli()}.settle(in, row)
			return err
		}, func() error {
			_, _, err := r.there.PurgeProjects(t.Context(), r.soon, 1000)
			return err
		}, nil, nil)
		for _, table := range []string{"manifests", "manifest_reviews", "repositories", "projects", "links", "blobs"} {
			if n := count(t, r.here, `SELECT count(*) FROM `+table); n != 0 {
				t.Errorf("%d rows of %s are left", n, table)
			}
		}
	})
}

// TestRaceCollectAndMount: a blob whose last link is collected while another
// repository mounts it is there, or the mount is refused.
func TestRaceCollectAndMount(t *testing.T) {
	t.Run("collected first", func(t *testing.T) {
		r := newRace(t)
		r.run(func(in *tx) error {
			var p place
			if err := in.queryRow(`SELECT id, project_id FROM repositories WHERE name = $1`, raced).Scan(&p.id, &p.project); err != nil {
				return err
			}
			_, err := r.here.reviewLink(in, linkRow{place: p, digest: r.blob}, r.soon.UnixMilli(), true)
			return err
		}, func() error {
			_, err := r.there.Mount(t.Context(), "crew/app", raced, r.blob)
			return err
		}, nil, ErrNotFound)
		wantWhole(t, r.here)
	})
	t.Run("mounted first", func(t *testing.T) {
		r := newRace(t)
		pushTo(t, r.here, "crew/app", "other")
		r.run(func(in *tx) error {
			p, err := r.here.place(in, "crew/app")
			if err != nil {
				return err
			}
			return r.here.link(in, p, r.blob, 4)
		}, func() error {
			removed, _, err := r.there.CollectLinks(t.Context(), time.Now().Add(time.Minute), 100)
			if err == nil && removed == 0 {
				err = errors.New("nothing is collected")
			}
			return err
		}, nil, nil)
		if _, err := r.here.Blob(t.Context(), "crew/app", r.blob); err != nil {
			t.Errorf("the blob that was mounted: %v", err)
		}
		wantWhole(t, r.here)
	})
}
