package metatest

import (
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

var tokenCases = []testCase{
	{"signing keys/rotation", signingRotation},
	{"signing keys/rotated by several at once", signingRace},
	{"signing keys/replaced", signingReplaced},
	{"refresh tokens/life", refreshLife},
	{"refresh tokens/lists", refreshLists},
	{"refresh tokens/nobody's", refreshNobody},
	{"refresh tokens/log-in that ended meanwhile", refreshStale},
	{"refresh tokens/expiry", refreshExpiry},
	{"refresh tokens/bounded", refreshBounded},
	{"login failures/counted by secret", failuresCount},
	{"login failures/old ones go", failuresGo},
}

// signing is the list of keys, with a star at those that are retired.
func (e *env) signing() (ids []string) {
	e.Helper()
	keys, err := e.db.SigningKeys(e.Context())
	e.ok(err)
	for _, k := range keys {
		if !k.RetiredAt.IsZero() {
			k.ID += "*"
		}
		ids = append(ids, k.ID)
	}
	return ids
}

func (e *env) wantSigning(want ...string) {
	e.Helper()
	if got := e.signing(); !slices.Equal(got, want) {
		e.Errorf("keys %v, want %v", got, want)
	}
}

// rotate replaces a key that was made at a time or before.
func (e *env) rotate(id string, unlessAfter time.Time) bool {
	e.Helper()
	rotated, err := e.db.RotateSigningKey(e.Context(), access.SigningKey{ID: id, Algorithm: "ES256", Private: []byte(id)}, unlessAfter)
	e.ok(err)
	return rotated
}

func signingRotation(e *env) {
	e.wantSigning()
	if !e.rotate("a", e.clock.now()) {
		e.Error("the first key was not made")
	}
	made := e.clock.now()
	generation := e.accessGeneration()
	e.clock.move(time.Hour)
	if e.rotate("x", made.Add(-time.Millisecond)) {
		e.Error("a key was replaced that is not old enough")
	}
	if e.accessGeneration() != generation {
		e.Error("the generation was raised for nothing")
	}
	if !e.rotate("b", made) {
		e.Error("a key was not replaced that is old enough")
	}
	if e.accessGeneration() == generation {
		e.Error("the generation was not raised")
	}
	keys, err := e.db.SigningKeys(e.Context())
	e.ok(err)
	want := []access.SigningKey{
		{ID: "b", Algorithm: "ES256", Private: []byte("b"), CreatedAt: e.clock.now()},
		{ID: "a", Algorithm: "ES256", Private: []byte("a"), CreatedAt: made, RetiredAt: e.clock.now()},
	}
	if !reflect.DeepEqual(keys, want) {
		e.Errorf("keys %+v, want %+v", keys, want)
	}
	e.ok(e.db.DeleteSigningKeys(e.Context(), e.clock.now()))
	e.wantSigning("b", "a*")
	e.ok(e.db.DeleteSigningKeys(e.Context(), e.clock.now().Add(time.Millisecond)))
	e.wantSigning("b")
}

func signingRace(e *env) {
	var racers sync.WaitGroup
	for i := range 8 {
		racers.Go(func() { e.rotate(fmt.Sprint(i), e.clock.now().Add(-time.Hour)) })
	}
	racers.Wait()
	if keys := e.signing(); len(keys) != 1 {
		e.Errorf("keys %v, want one", keys)
	}
}

func signingReplaced(e *env) {
	e.rotate("a", e.clock.now())
	replace := func(id string, revoke bool) func(meta.Change) error {
		return func(c meta.Change) error {
			return e.db.ReplaceSigningKey(e.Context(), c, access.SigningKey{ID: id, Algorithm: "ES256", Private: []byte(id)}, revoke)
		}
	}
	e.clock.move(time.Second)
	e.managed(replace("b", false))
	e.wantSigning("b", "a*")
	e.managed(replace("c", true))
	e.wantSigning("c")
}

// refreshToken keeps a token by a hash and finds it.
func (e *env) refreshToken(t access.RefreshToken, hash string) access.RefreshToken {
	e.Helper()
	t.CreatedAt, t.ExpiresAt = e.clock.now(), e.clock.now().Add(time.Hour)
	e.ok(e.db.CreateRefreshToken(e.Context(), t, hash))
	got, err := e.db.RefreshTokenByHash(e.Context(), hash)
	e.ok(err)
	t.ID, t.User = got.ID, got.User
	if got != t || got.ID == "" {
		e.Errorf("token %+v, want %+v", got, t)
	}
	return got
}

func refreshLife(e *env) {
	alice := e.user("alice")
	one := e.refreshToken(access.RefreshToken{UserID: alice.ID, Service: "s", Client: "docker", Address: "192.0.2.1"}, "h1")
	if one.User != "alice" {
		e.Errorf("user %q", one.User)
	}
	byID, err := e.db.RefreshTokenByID(e.Context(), one.ID)
	if err != nil || byID != one {
		e.Errorf("by id: %+v, %v", byID, err)
	}
	e.wantErr("one hash twice", e.db.CreateRefreshToken(e.Context(), access.RefreshToken{UserID: alice.ID}, "h1"), meta.ErrExists)
	e.ok(e.db.TouchRefreshToken(e.Context(), one.ID, e.clock.now()))
	if got, err := e.db.RefreshTokenByHash(e.Context(), "h1"); err != nil || !got.LastUsed.Equal(e.clock.now()) {
		e.Errorf("touched: %+v, %v", got, err)
	}
	revoke := func(c meta.Change) error { return e.db.RevokeRefreshToken(e.Context(), c, one.ID) }
	e.managed(revoke)
	e.refused("revoke it again", meta.ErrNotFound, revoke)
	_, err = e.db.RefreshTokenByHash(e.Context(), "h1")
	e.wantErr("find it then", err, meta.ErrNotFound)
	_, err = e.db.RefreshTokenByID(e.Context(), one.ID)
	e.wantErr("find it by id", err, meta.ErrNotFound)
}

func refreshLists(e *env) {
	alice, bob := e.user("alice"), e.user("bob")
	robot := e.key(access.Key{Name: "ci", ProjectID: e.project(meta.ProjectSpec{Name: "acme"}).ID, Role: access.Writer}, "k")
	all := map[string][]string{}
	for i := range 6 {
		t := access.RefreshToken{Service: "s", UserID: alice.ID}
		switch i % 3 {
		case 1:
			t.UserID = bob.ID
		case 2:
			t.UserID, t.KeyID = "", robot.ID
		}
		id := e.refreshToken(t, fmt.Sprint("h", i)).ID
		all[""] = append(all[""], id)
		if t.UserID != "" {
			all[t.UserID] = append(all[t.UserID], id)
		}
	}
	for user, want := range all {
		e.wantPages(want, func(after string, n int) (ids []string, err error) {
			page, err := e.db.ListRefreshTokens(e.Context(), user, after, n)
			for _, t := range page {
				ids = append(ids, t.ID)
			}
			return ids, err
		})
	}
}

// refreshNobody: none is made for what does not count any more, nor left when
// it ends.
func refreshNobody(e *env) {
	_, err := e.db.CreateUser(e.Context(), changing("user.create"), meta.UserSpec{Name: "root", Admin: true})
	e.ok(err)
	alice := e.user("alice")
	key := e.key(access.Key{Name: "ci", UserID: alice.ID}, "k")
	e.refreshToken(access.RefreshToken{UserID: alice.ID, KeyID: key.ID}, "h1")
	e.managed(e.revokeKey(alice.ID, key.ID))
	_, err = e.db.RefreshTokenByHash(e.Context(), "h1")
	e.wantErr("find the token of a revoked key", err, meta.ErrNotFound)
	for what, t := range map[string]access.RefreshToken{
		"a revoked key": {UserID: alice.ID, KeyID: key.ID}, "an unknown user": {UserID: "x"}, "an unknown key": {KeyID: "x"},
	} {
		e.wantErr("a token for "+what, e.db.CreateRefreshToken(e.Context(), t, "h2"), meta.ErrNotFound)
	}
	if err := e.db.CreateRefreshToken(e.Context(), access.RefreshToken{}, "h3"); err == nil {
		e.Error("a token for nobody")
	}
	e.ok(e.db.SetUser(e.Context(), changing("user.change"), "alice", meta.UserChange{Locked: new(true)}))
	e.wantErr("a token for a locked user", e.db.CreateRefreshToken(e.Context(), access.RefreshToken{UserID: alice.ID}, "h4"), meta.ErrNotFound)
}

// refreshStale: what a process has looked at before sessions were ended counts
// for nothing, however close the two are and whatever the clocks say.
func refreshStale(e *env) {
	alice := e.user("alice")
	login := func() access.Login {
		e.Helper()
		l, err := e.db.Login(e.Context(), "alice")
		e.ok(err)
		return l
	}
	n := 0
	create := func(t access.RefreshToken) error {
		n++
		t.UserID, t.CreatedAt, t.ExpiresAt = alice.ID, e.clock.now(), e.clock.now().Add(time.Hour)
		return e.db.CreateRefreshToken(e.Context(), t, fmt.Sprint("h", n))
	}
	for what, end := range map[string]func() error{
		"a new password": func() error {
			return e.db.SetUser(e.Context(), changing("user.change"), "alice", meta.UserChange{Password: new("$argon2id$" + fmt.Sprint(n))})
		},
		"the end of sessions": func() error { return e.db.EndSessions(e.Context(), changing("user.logout"), "alice") },
	} {
		for _, pass := range []time.Duration{time.Second, 0, -time.Minute} {
			e.clock.move(pass)
			seen := login()
			e.ok(create(access.RefreshToken{Since: seen.ValidAfter}))
			e.ok(end())
			e.wantErr(fmt.Sprint("a log-in of before ", what, " after ", pass), create(access.RefreshToken{Since: seen.ValidAfter}), meta.ErrNotFound)
			e.ok(create(access.RefreshToken{Since: login().ValidAfter}))
		}
	}
	e.clock.move(2 * time.Minute)
	old := e.clock.now()
	e.ok(create(access.RefreshToken{Since: old})) // with a refresh token of then
	e.clock.move(time.Second)
	e.ok(e.db.EndSessions(e.Context(), changing("user.logout"), "alice"))
	e.wantErr("a refresh token of before", create(access.RefreshToken{Since: old}), meta.ErrNotFound)
	e.wantErr("who says nothing", create(access.RefreshToken{}), meta.ErrNotFound)
	key := e.key(access.Key{Name: "laptop", UserID: alice.ID}, "k")
	e.ok(create(access.RefreshToken{KeyID: key.ID})) // keys stay good
	e.wantErr("a key and a refresh token of before", create(access.RefreshToken{KeyID: key.ID, Since: old}), meta.ErrNotFound)
}

func refreshExpiry(e *env) {
	alice := e.user("alice")
	for i := range 3 {
		e.refreshToken(access.RefreshToken{UserID: alice.ID}, fmt.Sprint("h", i))
		e.clock.move(time.Minute)
	}
	before := e.clock.now().Add(time.Hour - time.Minute) // the last one expires then
	for _, want := range []int{1, 1, 0} {
		if n, err := e.db.ExpireRefreshTokens(e.Context(), before, 1); n != want || err != nil {
			e.Errorf("%d expired, %v; want %d", n, err, want)
		}
	}
	if _, err := e.db.RefreshTokenByHash(e.Context(), "h2"); err != nil {
		e.Errorf("the last one: %v", err)
	}
}

// refreshBounded: the newest hundred of each stay.
func refreshBounded(e *env) {
	alice := e.user("alice")
	robot := e.key(access.Key{Name: "ci", ProjectID: e.project(meta.ProjectSpec{Name: "acme"}).ID, Role: access.Writer}, "k")
	for i := range 103 {
		e.refreshToken(access.RefreshToken{UserID: alice.ID}, fmt.Sprint("a", i))
		e.refreshToken(access.RefreshToken{KeyID: robot.ID}, fmt.Sprint("r", i))
	}
	for _, who := range []string{"a", "r"} {
		for i, want := range map[int]error{0: meta.ErrNotFound, 2: meta.ErrNotFound, 3: nil, 102: nil} {
			_, err := e.db.RefreshTokenByHash(e.Context(), fmt.Sprint(who, i))
			e.wantErr(fmt.Sprint(who, i), err, want)
		}
	}
}

func (e *env) fails(bucket string, secrets ...string) {
	e.Helper()
	var failures []access.LoginFailure
	for _, s := range secrets {
		failures = append(failures, access.LoginFailure{Bucket: bucket, Secret: s})
	}
	e.ok(e.db.AddLoginFailures(e.Context(), failures, e.clock.now().Add(-time.Minute)))
}

// wantFailures checks how long ago the failures of a bucket were that are not
// older than a minute.
func (e *env) wantFailures(bucket string, ago ...time.Duration) {
	e.Helper()
	times, err := e.db.LoginFailures(e.Context(), bucket, e.clock.now().Add(-time.Minute))
	e.ok(err)
	got := []time.Duration{}
	for _, at := range times {
		got = append(got, e.clock.now().Sub(at))
	}
	if slices.Sort(got); !slices.Equal(got, ago) {
		e.Errorf("failures of %s are %v ago, want %v", bucket, got, ago)
	}
}

func failuresCount(e *env) {
	e.wantFailures("alice")
	e.fails("alice", "a", "b")
	e.clock.move(time.Second)
	e.fails("alice", "a", "c")
	e.fails("bob", "a")
	e.wantFailures("alice", 0, time.Second, time.Second)
	e.wantFailures("bob", 0)
	e.clock.move(time.Minute)
	e.wantFailures("alice")
	e.fails("alice", "a")
	e.wantFailures("alice", 0)
	e.wantFailures("bob")
}

func failuresGo(e *env) {
	for i := range 250 {
		e.fails("alice", fmt.Sprint(i))
	}
	e.clock.move(time.Minute)
	for _, want := range []int{150, 50, 0} {
		e.fails("bob", "a")
		all, err := e.db.LoginFailures(e.Context(), "alice", time.Time{})
		if err != nil || len(all) != want {
			e.Errorf("%d are left, %v; want %d", len(all), err, want)
		}
	}
}
