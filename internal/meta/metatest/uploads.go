package metatest

import (
	"reflect"
	"time"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

var uploadCases = []testCase{
	{"upload/created", func(e *env) {
		u := meta.Upload{ID: "0000-a", Repository: repo, Algorithm: oci.SHA512, Size: 3, Hash: []byte{0, 255}, State: nil}
		e.ok(e.db.CreateUpload(e.Context(), u))
		e.wantUpload(u)
	}},
	{"upload/unknown", func(e *env) {
		u := e.lease(repo, 0)
		for _, id := range []string{"", "x", u.ID + " ", "a\x00b", "\xff"} {
			_, err := e.db.Upload(e.Context(), repo, id)
			e.wantErr("read an unknown session", err, meta.ErrNotFound)
			_, err = e.db.LeaseUpload(e.Context(), repo, id, ttl)
			e.wantErr("lease an unknown session", err, meta.ErrNotFound)
		}
		_, err := e.db.Upload(e.Context(), other, u.ID)
		e.wantErr("read another repository's session", err, meta.ErrNotFound)
		_, err = e.db.LeaseUpload(e.Context(), other, u.ID, ttl)
		e.wantErr("lease another repository's session", err, meta.ErrNotFound)
	}},
	{"upload/saved", func(e *env) {
		u := e.lease(repo, 1)
		u.Size, u.Algorithm, u.Hash, u.State = 1<<40, oci.SHA512, []byte("h2"), []byte("s2")
		e.ok(e.db.SaveUpload(e.Context(), u))
		e.wantUpload(u)
		_, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		e.wantErr("lease what is saved but not released", err, meta.ErrLeased)
	}},
	{"upload/cancelled", func(e *env) {
		u := e.lease(repo, 9)
		e.ok(e.db.CancelUpload(e.Context(), u))
		_, err := e.db.Upload(e.Context(), repo, u.ID)
		e.wantErr("read a cancelled session", err, meta.ErrNotFound)
		want := []meta.DeadObject{{Key: u.ID, Unsealed: true, Size: 9, State: []byte("state"), Bytes: 9, At: e.clock.now().UnixMilli()}}
		got, err := e.db.DeadObjects(e.Context(), e.clock.now(), 10)
		if e.ok(err); !reflect.DeepEqual(got, want) {
			e.Errorf("dead are %+v, want %+v", got, want)
		}
		e.wantErr("cancel twice", e.db.CancelUpload(e.Context(), u), meta.ErrLeased)
	}},
	{"upload/expired", func(e *env) {
		old, leased := e.lease(repo, 4), e.lease(repo, 5)
		e.release(old)
		start := e.clock.now()
		e.clock.move(ttl / 2)
		fresh := e.lease(repo, 6)
		e.release(fresh)
		e.wantExpired(start, 0)
		e.wantExpired(start.Add(time.Millisecond), 1)
		e.wantDead(old.ID)
		e.wantUpload(leased)
		e.wantUpload(fresh)
		e.release(leased)
		e.wantExpired(start.Add(time.Millisecond), 1)
		e.wantDead(old.ID, leased.ID)
	}},
	{"upload/saving puts expiry off", func(e *env) {
		u := e.lease(repo, 4)
		start := e.clock.now()
		e.clock.move(time.Second)
		e.ok(e.db.SaveUpload(e.Context(), u))
		e.release(u)
		e.wantExpired(start.Add(time.Second), 0)
		e.wantUpload(u)
	}},
	{"upload/begun again after its end", func(e *env) {
		// As by a connection that was given up and delivers what it was given.
		for _, end := range []func(meta.Upload) error{
			func(u meta.Upload) error { _, err := e.db.CommitBlob(e.Context(), u, digest("x")); return err },
			func(u meta.Upload) error { _, err := e.db.CommitBlob(e.Context(), u, digest("x")); return err }, // not kept
			func(u meta.Upload) error { return e.db.CancelUpload(e.Context(), u) },
		} {
			u := e.lease(repo, 4)
			e.ok(end(u))
			e.wantErr("a second session of one id", e.db.CreateUpload(e.Context(), u), meta.ErrExists)
		}
		e.clock.move(time.Hour)
		e.wantExpired(e.clock.now(), 0)
	}},
	{"upload/expired in batches", func(e *env) {
		for range 5 {
			e.release(e.lease(repo, 1))
		}
		e.clock.move(time.Hour)
		for _, want := range []int{2, 2, 1, 0} {
			n, err := e.db.ExpireUploads(e.Context(), e.clock.now(), 2)
			if e.ok(err); n != want {
				e.Errorf("%d sessions expired, want %d", n, want)
			}
		}
	}},
}

// wantUpload checks a session's row but for its version, which any verb may raise.
func (e *env) wantUpload(want meta.Upload) {
	e.Helper()
	got, err := e.db.Upload(e.Context(), want.Repository, want.ID)
	want.Version = got.Version
	if e.ok(err); !reflect.DeepEqual(got, want) {
		e.Errorf("session is %+v, want %+v", got, want)
	}
}

func (e *env) wantExpired(before time.Time, want int) {
	e.Helper()
	n, err := e.db.ExpireUploads(e.Context(), before, 100)
	if e.ok(err); n != want {
		e.Errorf("%d sessions expired, want %d", n, want)
	}
}

var leaseCases = []testCase{
	{"lease/exclusive", func(e *env) {
		u := e.lease(repo, 7)
		got, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		if e.wantErr("lease a leased session", err, meta.ErrLeased); !reflect.DeepEqual(got, u) {
			e.Errorf("the refusal shows %+v, want the row %+v", got, u)
		}
		e.clock.move(ttl - time.Millisecond)
		e.ok(e.db.RenewUpload(e.Context(), u.ID, u.Version, ttl))
		e.clock.move(ttl - time.Millisecond)
		_, err = e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		e.wantErr("lease a renewed session", err, meta.ErrLeased)
		e.ok(e.db.SaveUpload(e.Context(), u))
	}},
	{"lease/released", func(e *env) {
		u := e.lease(repo, 7)
		for range 3 {
			e.release(u)
			got, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
			if e.ok(err); got.Size != 7 {
				e.Errorf("releasing has changed the row: %+v", got)
			}
			u = got
		}
	}},
	{"lease/of an ended session", func(e *env) {
		u := e.lease(repo, 7)
		e.ok(e.db.CancelUpload(e.Context(), u))
		_, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		e.wantErr("lease before the release", err, meta.ErrNotFound)
		e.release(u)
		_, err = e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		e.wantErr("lease after the release", err, meta.ErrNotFound)
		e.wantErr("save an ended session", e.db.SaveUpload(e.Context(), u), meta.ErrLeased)
	}},
	{"lease/a late renewal locks nothing", func(e *env) {
		u := e.lease(repo, 7)
		e.release(u)
		// Whether this is an error depends on who shares the database.
		e.db.RenewUpload(e.Context(), u.ID, u.Version, ttl)
		_, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		e.ok(err)
	}},
}

// expiryCases hold where leases are taken over when they have run out.
var expiryCases = []testCase{
	{"expiry/of a lease", func(e *env) {
		u := e.lease(repo, 7)
		e.clock.move(ttl - time.Millisecond)
		_, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		e.wantErr("lease too early", err, meta.ErrLeased)
		e.clock.move(time.Millisecond)
		got, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		if e.ok(err); got.Version <= u.Version {
			e.Errorf("version %d follows %d", got.Version, u.Version)
		}
	}},
	{"expiry/taken over", func(e *env) {
		lost := e.lease(repo, 7)
		e.clock.move(ttl)
		u, err := e.db.LeaseUpload(e.Context(), repo, lost.ID, ttl)
		e.ok(err)
		lost.Size = 99
		e.wantErr("save", e.db.SaveUpload(e.Context(), lost), meta.ErrLeased)
		e.wantErr("renew", e.db.RenewUpload(e.Context(), lost.ID, lost.Version, ttl), meta.ErrLeased)
		e.wantErr("cancel", e.db.CancelUpload(e.Context(), lost), meta.ErrLeased)
		e.release(lost) // changes nothing
		e.wantUpload(u)
		_, err = e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		e.wantErr("lease from the new holder", err, meta.ErrLeased)
		e.ok(e.db.SaveUpload(e.Context(), u))
	}},
	{"expiry/not taken over", func(e *env) {
		u := e.lease(repo, 7)
		e.clock.move(time.Hour)
		u.Size = 8
		e.ok(e.db.SaveUpload(e.Context(), u))
		e.wantUpload(u)
	}},
	{"expiry/of a session whose holder is gone", func(e *env) {
		u := e.lease(repo, 7)
		e.clock.move(ttl)
		e.wantExpired(e.clock.now(), 0)
		e.clock.move(time.Millisecond)
		e.wantExpired(e.clock.now(), 1)
		e.wantDead(u.ID)
	}},
	{"expiry/commit without the lease", func(e *env) {
		old := e.lease(repo, 1)
		e.clock.move(ttl)
		u, err := e.db.LeaseUpload(e.Context(), repo, old.ID, ttl)
		e.ok(err)
		_, err = e.db.CommitBlob(e.Context(), old, digest("a"))
		e.wantErr("commit with a lost lease", err, meta.ErrLeased)
		_, err = e.db.Blob(e.Context(), repo, digest("a"))
		e.wantErr("find what was not committed", err, meta.ErrNoRepository)
		_, err = e.db.CommitBlob(e.Context(), u, digest("a"))
		e.ok(err)
		e.wantDead()
	}},
}
