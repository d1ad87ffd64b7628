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
		e.clock.move(ttl)
		_, err = e.db.LeaseUpload(e.Context(), other, u.ID, ttl)
		e.wantErr("lease another repository's session", err, meta.ErrNotFound)
	}},
	{"upload/saved", func(e *env) {
		u := e.lease(repo, 1)
		u.Size, u.Algorithm, u.Hash, u.State = 1<<40, oci.SHA512, []byte("h2"), []byte("s2")
		e.ok(e.db.SaveUpload(e.Context(), u))
		e.wantUpload(u)
		_, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		e.ok(err) // saving has ended the lease
	}},
	{"upload/cancelled", func(e *env) {
		u := e.lease(repo, 9)
		e.ok(e.db.CancelUpload(e.Context(), u))
		_, err := e.db.Upload(e.Context(), repo, u.ID)
		e.wantErr("read a cancelled session", err, meta.ErrNotFound)
		want := []meta.DeadObject{{Key: u.ID, Unsealed: true, Size: 9, State: []byte("state")}}
		got, err := e.db.DeadObjects(e.Context(), e.clock.now(), 10)
		if e.ok(err); !reflect.DeepEqual(got, want) {
			e.Errorf("dead are %+v, want %+v", got, want)
		}
		e.wantErr("cancel twice", e.db.CancelUpload(e.Context(), u), meta.ErrLeased)
	}},
	{"upload/expired", func(e *env) {
		old, renewed := e.lease(repo, 4), e.lease(repo, 5)
		e.ok(e.db.SaveUpload(e.Context(), old))
		start := e.clock.now()
		e.clock.move(time.Hour)
		fresh := e.lease(repo, 6)
		e.ok(e.db.RenewUpload(e.Context(), renewed.ID, renewed.Version, ttl))
		e.wantExpired(start, 0)
		e.wantExpired(start.Add(time.Millisecond), 1)
		e.wantDead(old.ID)
		e.clock.move(ttl + time.Millisecond)
		e.wantExpired(start.Add(time.Millisecond), 1)
		e.wantDead(old.ID, renewed.ID)
		e.wantUpload(fresh)
	}},
	{"upload/expired in batches", func(e *env) {
		for range 5 {
			u := e.lease(repo, 1)
			e.ok(e.db.ReleaseUpload(e.Context(), u.ID, u.Version))
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

func (e *env) wantUpload(want meta.Upload) {
	e.Helper()
	got, err := e.db.Upload(e.Context(), want.Repository, want.ID)
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
		_, err = e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		e.wantErr("lease too early", err, meta.ErrLeased)
		e.clock.move(time.Millisecond)
		got, err = e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		if e.ok(err); got.Version <= u.Version {
			e.Errorf("version %d follows %d", got.Version, u.Version)
		}
	}},
	{"lease/renewed", func(e *env) {
		u := e.lease(repo, 7)
		for range 3 {
			e.clock.move(ttl - time.Millisecond)
			e.ok(e.db.RenewUpload(e.Context(), u.ID, u.Version, ttl))
		}
		_, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		e.wantErr("lease a renewed session", err, meta.ErrLeased)
		e.ok(e.db.SaveUpload(e.Context(), u))
	}},
	{"lease/taken over", func(e *env) {
		lost := e.lease(repo, 7)
		e.clock.move(ttl)
		u, err := e.db.LeaseUpload(e.Context(), repo, lost.ID, ttl)
		e.ok(err)
		lost.Size = 99
		e.wantErr("save", e.db.SaveUpload(e.Context(), lost), meta.ErrLeased)
		e.wantErr("renew", e.db.RenewUpload(e.Context(), lost.ID, lost.Version, ttl), meta.ErrLeased)
		e.wantErr("release", e.db.ReleaseUpload(e.Context(), lost.ID, lost.Version), meta.ErrLeased)
		e.wantErr("cancel", e.db.CancelUpload(e.Context(), lost), meta.ErrLeased)
		e.wantUpload(u)
		_, err = e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		e.wantErr("lease from the new holder", err, meta.ErrLeased)
		e.ok(e.db.SaveUpload(e.Context(), u))
	}},
	{"lease/expired but not taken", func(e *env) {
		u := e.lease(repo, 7)
		e.clock.move(time.Hour)
		u.Size = 8
		e.ok(e.db.SaveUpload(e.Context(), u))
		e.wantUpload(u)
	}},
	{"lease/released", func(e *env) {
		u := e.lease(repo, 7)
		e.ok(e.db.ReleaseUpload(e.Context(), u.ID, u.Version))
		got, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
		if e.ok(err); got.Size != 7 {
			e.Errorf("releasing has changed the row: %+v", got)
		}
	}},
	{"lease/a late renewal locks nothing", func(e *env) {
		for _, end := range []func(meta.Upload) error{
			func(u meta.Upload) error { return e.db.SaveUpload(e.Context(), u) },
			func(u meta.Upload) error { return e.db.ReleaseUpload(e.Context(), u.ID, u.Version) },
		} {
			u := e.lease(repo, 7)
			e.ok(end(u))
			e.wantErr("renew a lease that was given back", e.db.RenewUpload(e.Context(), u.ID, u.Version, ttl), meta.ErrLeased)
			_, err := e.db.LeaseUpload(e.Context(), repo, u.ID, ttl)
			e.ok(err)
		}
	}},
}
