package metatest

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

var keyCases = []testCase{
	{"keys/life", keyLife},
	{"keys/names", keyNames},
	{"keys/lists", keyLists},
	{"keys/revoked by id", keyRevokedByID},
	{"keys/last used", keyTouched},
	{"keys/refused", keyRefused},
	{"keys/a project never had one", keyGuards},
	{"keys/two of one name at once", keyRace},
}

func (e *env) key(k access.Key, hash string) access.Key {
	e.Helper()
	k, err := e.db.CreateKey(e.Context(), changing("key.create"), k, hash)
	e.ok(err)
	return k
}

func (e *env) revokeKey(owner, ref string) func(meta.Change) error {
	return func(c meta.Change) error {
		_, err := e.db.RevokeKey(e.Context(), c, owner, ref)
		return err
	}
}

func keyLife(e *env) {
	p := e.project(meta.ProjectSpec{Name: "acme"})
	want := access.Key{ID: meta.NewID(), Name: "ci", ProjectID: p.ID, Role: access.Writer, Prefixes: []string{"acme/app"},
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		CreatedAt: e.clock.now().Add(-time.Minute), CreatedBy: "alice", ExpiresAt: e.clock.now().Add(time.Hour)}
	e.managed(func(c meta.Change) error {
		got, err := e.db.CreateKey(e.Context(), c, want, "hash")
		if !reflect.DeepEqual(got, want) {
			e.Errorf("created %+v, want %+v", got, want)
		}
		return err
	})
	same := func() {
		e.Helper()
		for how, find := range map[string]func(ctx context.Context) (access.Key, error){
			"hash":      func(ctx context.Context) (access.Key, error) { return e.db.KeyByHash(ctx, "hash") },
			"id":        func(ctx context.Context) (access.Key, error) { return e.db.KeyByID(ctx, want.ID) },
			"name":      func(ctx context.Context) (access.Key, error) { return e.db.Key(ctx, p.ID, "ci") },
			"owner, id": func(ctx context.Context) (access.Key, error) { return e.db.Key(ctx, p.ID, want.ID) },
		} {
			got, err := find(e.Context())
			if how == "name" && !want.RevokedAt.IsZero() {
				e.wantErr("find a revoked key by name", err, meta.ErrNotFound)
			} else if err != nil || !reflect.DeepEqual(got, want) {
				e.Errorf("by %s: %+v, %v; want %+v", how, got, err, want)
			}
		}
	}
	same()
	_, err := e.db.Key(e.Context(), "default", want.ID)
	e.wantErr("find another's key", err, meta.ErrNotFound)
	want.RevokedAt = e.clock.now()
	for range 2 { // the second time does nothing
		e.managed(func(c meta.Change) error {
			got, err := e.db.RevokeKey(e.Context(), c, p.ID, "ci")
			if !reflect.DeepEqual(got, want) {
				e.Errorf("revoked %+v, want %+v", got, want)
			}
			return err
		})
		same()
		e.clock.move(time.Minute)
	}
}

func keyNames(e *env) {
	u, p := e.user("alice"), e.project(meta.ProjectSpec{Name: "acme"})
	mine := access.Key{Name: "ci", UserID: u.ID}
	e.key(mine, "1")
	e.key(access.Key{Name: "ci", ProjectID: p.ID, Role: access.Reader}, "2")
	e.refused("a second live key of one name", meta.ErrExists, func(c meta.Change) error {
		_, err := e.db.CreateKey(e.Context(), c, mine, "3")
		return err
	})
	e.managed(e.revokeKey(u.ID, "ci"))
	second := e.key(mine, "3")
	e.managed(e.revokeKey(u.ID, "ci"))
	if k, err := e.db.KeyByID(e.Context(), second.ID); err != nil || k.RevokedAt.IsZero() {
		e.Errorf("the live key of a name that was revoked before is %+v, %v", k, err)
	}
	if k, err := e.db.RevokeKey(e.Context(), changing("key.revoke"), u.ID, "ci"); err != nil || k.ID != second.ID {
		e.Errorf("revoked again by its name is %+v, %v; want the newest", k, err)
	}
	if k, err := e.db.KeyByHash(e.Context(), "2"); err != nil || !k.RevokedAt.IsZero() {
		e.Errorf("another's key of the name is %+v, %v", k, err)
	}
}

func keyLists(e *env) {
	u, p := e.user("alice"), e.project(meta.ProjectSpec{Name: "acme"})
	for i := range 5 {
		e.key(access.Key{Name: fmt.Sprint("k", i), UserID: u.ID}, fmt.Sprint(i))
	}
	e.key(access.Key{Name: "robot", ProjectID: p.ID, Role: access.Reader}, "robot")
	e.ok(e.revokeKey(u.ID, "k1")(changing("key.revoke")))
	want := func(owner string, revoked bool, names ...string) {
		e.Helper()
		pages(e, "keys", func(k access.Key) string { return k.ID }, func(k access.Key) string { return k.Name },
			func(after string, n int) ([]access.Key, error) {
				return e.db.Keys(e.Context(), owner, revoked, after, n)
			}, names...)
	}
	want(u.ID, false, "k0", "k2", "k3", "k4")
	want(u.ID, true, "k0", "k1", "k2", "k3", "k4")
	want(p.ID, true, "robot")
	want("none", true)
}

func keyRevokedByID(e *env) {
	u, other := e.user("alice"), e.user("bob")
	k := e.key(access.Key{Name: "ci", UserID: u.ID}, "1")
	e.refused("revoke another's key by id", meta.ErrNotFound, e.revokeKey(other.ID, k.ID))
	e.refused("revoke another's key by name", meta.ErrNotFound, e.revokeKey(other.ID, "ci"))
	e.refused("revoke an unknown key", meta.ErrNotFound, e.revokeKey(u.ID, "none"))
	e.managed(e.revokeKey(u.ID, k.ID))
	if k, err := e.db.KeyByID(e.Context(), k.ID); err != nil || k.RevokedAt.IsZero() {
		e.Errorf("the key is %+v, %v", k, err)
	}
}

func keyTouched(e *env) {
	u := e.user("alice")
	a, b := e.key(access.Key{Name: "a", UserID: u.ID}, "a"), e.key(access.Key{Name: "b", UserID: u.ID}, "b")
	generation, lines := e.state()
	now := e.clock.now()
	for _, used := range []map[string]time.Time{
		{a.ID: now, "gone": now},
		{a.ID: now.Add(-time.Hour), b.ID: now.Add(-time.Minute)},
		{b.ID: now.Add(time.Minute)},
		nil,
	} {
		e.ok(e.db.TouchKeys(e.Context(), used))
	}
	for id, want := range map[string]time.Time{a.ID: now, b.ID: now.Add(time.Minute)} {
		if k, err := e.db.KeyByID(e.Context(), id); err != nil || !k.LastUsed.Equal(want) {
			e.Errorf("last used %v, %v; want %v", k.LastUsed, err, want)
		}
	}
	if after, more := e.state(); after != generation || len(more) != len(lines) {
		e.Error("the use of a key is a change of rights")
	}
}

func keyRefused(e *env) {
	u, p, gone := e.user("alice"), e.project(meta.ProjectSpec{Name: "acme"}), e.project(meta.ProjectSpec{Name: "gone"})
	e.deleteProject(gone)
	e.key(access.Key{Name: "any", UserID: u.ID, Prefixes: []string{"other/app", "acme"}}, "any")
	for what, c := range map[string]struct {
		k    access.Key
		want error
	}{
		"an unknown user":             {access.Key{UserID: "none"}, meta.ErrNotFound},
		"an unknown project":          {access.Key{ProjectID: "none", Role: access.Reader}, meta.ErrNotFound},
		"a deleted project":           {access.Key{ProjectID: gone.ID, Role: access.Reader}, meta.ErrNotFound},
		"a project, without a role":   {access.Key{ProjectID: p.ID}, access.ErrInvalid},
		"another project's prefix":    {access.Key{ProjectID: p.ID, Role: access.Reader, Prefixes: []string{"acme/app", "acmes/app"}}, access.ErrInvalid},
		"a prefix that is no name":    {access.Key{UserID: u.ID, Prefixes: []string{"Acme"}}, access.ErrInvalid},
		"a prefix that is everything": {access.Key{UserID: u.ID, Prefixes: []string{""}}, access.ErrInvalid},
	} {
		e.refused("a key of "+what, c.want, func(change meta.Change) error {
			c.k.Name = "ci"
			_, err := e.db.CreateKey(e.Context(), change, c.k, "hash")
			return err
		})
	}
	_, err := e.db.KeyByHash(e.Context(), "hash")
	e.wantErr("find a refused key", err, meta.ErrNotFound)
}

// keyGuards: a registry that asks for log-in goes on to.
func keyGuards(e *env) {
	p := e.project(meta.ProjectSpec{Name: "acme"})
	guarded := func(want bool) {
		e.Helper()
		if got, err := e.db.Guarded(e.Context()); err != nil || got != want {
			e.Errorf("guarded: %v, %v; want %v", got, err, want)
		}
	}
	purge := func(p meta.Project) {
		e.Helper()
		e.deleteProject(p)
		e.clock.move(time.Second)
		if n, _, err := e.db.PurgeProjects(e.Context(), e.clock.now(), 100); err != nil || n != 1 {
			e.Errorf("%d projects are purged: %v", n, err)
		}
	}
	guarded(false)
	purge(e.project(meta.ProjectSpec{Name: "keyless"}))
	guarded(false)
	e.key(access.Key{Name: "ci", ProjectID: p.ID, Role: access.Writer}, "hash")
	guarded(true)
	e.managed(e.revokeKey(p.ID, "ci"))
	guarded(true)
	purge(p)
	guarded(true)
}

func keyRace(e *env) {
	u := e.user("alice")
	_, before := e.state()
	won := 0
	for _, err := range together(8, func(i int) error {
		_, err := e.db.CreateKey(e.Context(), changing("key.create"), access.Key{Name: "ci", UserID: u.ID}, fmt.Sprint(i))
		return err
	}) {
		if err == nil {
			won++
		} else {
			e.wantErr("the loser of a race", err, meta.ErrExists)
		}
	}
	if _, lines := e.state(); won != 1 || len(lines) != len(before)+1 {
		e.Errorf("%d won, the trail is %v", won, lines)
	}
}
