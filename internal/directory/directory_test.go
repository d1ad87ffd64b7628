package directory

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
)

func openDB(t *testing.T, path string, shared bool) *meta.DB {
	t.Helper()
	db, err := meta.Open(t.Context(), meta.Options{Path: path, Shared: shared})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func must[V any](t *testing.T) func(V, error) V {
	return func(v V, err error) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// counting counts the look-ups that reach the database, and can break them.
type counting struct {
	Store
	asked  atomic.Int64
	broken error
}

func (c *counting) ProjectAccess(ctx context.Context, name string) (access.Project, error) {
	c.asked.Add(1)
	if c.broken != nil {
		return access.Project{}, c.broken
	}
	return c.Store.ProjectAccess(ctx, name)
}

func (c *counting) Login(ctx context.Context, name string) (access.Login, error) {
	c.asked.Add(1)
	return c.Store.Login(ctx, name)
}

// fixture is a directory over a database with a project.
type fixture struct {
	*Directory
	db      *meta.DB
	store   *counting
	project meta.Project
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{db: openDB(t, metatest.File(t), false)}
	f.store = &counting{Store: f.db}
	f.Directory = New(f.store)
	f.project = must[meta.Project](t)(f.db.CreateProject(t.Context(), meta.Change{}, meta.ProjectSpec{Name: "acme", Visibility: access.Private}))
	return f
}

func (f *fixture) wantAsked(t *testing.T, want int64) {
	t.Helper()
	if got := f.store.asked.Swap(0); got != want {
		t.Errorf("the database was asked %d times, want %d", got, want)
	}
}

func TestRemembers(t *testing.T) {
	f := newFixture(t)
	for range 3 {
		if p, err := f.Project(t.Context(), "acme"); err != nil || p.Visibility != access.Private {
			t.Fatalf("%+v, %v", p, err)
		}
		if _, err := f.Project(t.Context(), "none"); !errors.Is(err, access.ErrNotFound) {
			t.Fatalf("find what is not there: %v", err)
		}
	}
	f.wantAsked(t, 2)
	public := access.Public
	if err := f.db.SetProject(t.Context(), meta.Change{}, f.project.ID, meta.ProjectChange{Visibility: &public}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if p, err := f.Project(t.Context(), "acme"); err != nil || p.Visibility != access.Public {
			t.Errorf("after a change: %+v, %v", p, err)
		}
	}
	f.wantAsked(t, 1)
	must[meta.Project](t)(f.db.CreateProject(t.Context(), meta.Change{}, meta.ProjectSpec{Name: "none", Visibility: access.Private}))
	if _, err := f.Project(t.Context(), "none"); err != nil {
		t.Errorf("find what has just been made: %v", err)
	}
}

func TestFailuresAreNotRemembered(t *testing.T) {
	f := newFixture(t)
	f.store.broken = errors.New("it broke")
	for range 2 {
		if _, err := f.Project(t.Context(), "acme"); !errors.Is(err, f.store.broken) {
			t.Errorf("look-up in a broken database: %v", err)
		}
	}
	f.wantAsked(t, 2)
	f.store.broken = nil
	if _, err := f.Project(t.Context(), "acme"); err != nil {
		t.Error(err)
	}
}

// TestBounds: clients choose what is looked up; they must not fill the memory.
func TestBounds(t *testing.T) {
	f := newFixture(t)
	for i := range maxRemembered + 100 {
		if _, err := f.Login(t.Context(), fmt.Sprint("user", i)); !errors.Is(err, access.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := len(f.logins.entries); n != maxRemembered {
		t.Errorf("%d entries are remembered, want %d", n, maxRemembered)
	}
	long := strings.Repeat("x", maxKey)
	for _, name := range []string{long, long + "x"} {
		if _, err := f.Login(t.Context(), name); !errors.Is(err, access.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if _, kept := f.logins.get(long); !kept {
		t.Error("a long name is not remembered")
	}
	if _, kept := f.logins.get(long + "x"); kept {
		t.Error("a name of any length is remembered")
	}
}

// TestNeverOlderThanAChange: when a change has returned, nobody is told of what
// was before it.
func TestNeverOlderThanAChange(t *testing.T) {
	f := newFixture(t)
	var claimed atomic.Int64 // changes that have returned
	ctx, stop := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	plan := func(i int64) string { return fmt.Sprint("plan", i) }
	ids := map[string]int64{}
	for i := range int64(30) {
		p := must[access.Plan](t)(f.db.CreatePlan(t.Context(), meta.Change{}, access.Plan{Name: plan(i)}))
		ids[p.ID] = i
	}
	for range 4 {
		looking.Go(func() {
			for ctx.Err() == nil {
				least := claimed.Load()
				p, err := f.Project(t.Context(), "acme")
				if err != nil || least > 0 && ids[p.Plan] < least {
					t.Errorf("told of plan %d after change %d, %v", ids[p.Plan], least, err)
					return
				}
			}
		})
	}
	for i := range int64(30) {
		name := plan(i)
		if err := f.db.SetProject(t.Context(), meta.Change{}, f.project.ID, meta.ProjectChange{Plan: &name}); err != nil {
			t.Error(err)
		}
		claimed.Store(i)
	}
	stop()
	looking.Wait()
}

// TestOtherProcess: what another process changes is followed within a second.
func TestOtherProcess(t *testing.T) {
	path := metatest.File(t)
	a, b := openDB(t, path, true), openDB(t, path, true)
	d := New(b)
	if _, err := d.Project(t.Context(), "acme"); !errors.Is(err, access.ErrNotFound) {
		t.Fatal(err)
	}
	must[meta.Project](t)(a.CreateProject(t.Context(), meta.Change{}, meta.ProjectSpec{Name: "acme", Visibility: access.Private}))
	for end := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := d.Project(t.Context(), "acme"); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal("a change of another process is not seen within a second")
		}
	}
}

func TestGuardedAndPlans(t *testing.T) {
	f := newFixture(t)
	if yes, err := f.Guarded(t.Context()); yes || err != nil {
		t.Errorf("guarded before there is any credential: %v, %v", yes, err)
	}
	f.user(t, "alice")
	if yes, err := f.Guarded(t.Context()); !yes || err != nil {
		t.Errorf("guarded with a user: %v, %v", yes, err)
	}
	if p, err := f.Plan(t.Context(), ""); err != nil || p.ID != access.DefaultPlan {
		t.Errorf("the default plan: %+v, %v", p, err)
	}
	if _, err := f.Plan(t.Context(), "none"); !errors.Is(err, access.ErrNotFound) {
		t.Errorf("a plan that is not there: %v", err)
	}
}

func (f *fixture) user(t *testing.T, name string) string {
	t.Helper()
	return must[meta.User](t)(f.db.CreateUser(t.Context(), meta.Change{}, meta.UserSpec{Name: name})).ID
}

func (f *fixture) key(t *testing.T, k access.Key) access.Key {
	t.Helper()
	return must[access.Key](t)(f.db.CreateKey(t.Context(), meta.Change{}, k, "hash of "+k.Name))
}

func (f *fixture) robot(t *testing.T, k access.Key) access.Principal {
	t.Helper()
	k.ProjectID, k.Role = f.project.ID, access.Writer
	id := f.key(t, k).ID
	return access.Principal{Kind: access.Robot, ID: id, KeyID: id}
}

// wantLapsed checks that a principal counts until what is done to it.
func (f *fixture) wantLapsed(t *testing.T, p access.Principal, reason string, do func() error) {
	t.Helper()
	if do != nil {
		if _, err := f.Standing(t.Context(), &p); err != nil {
			t.Errorf("%s before: %v", reason, err)
		}
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := f.Standing(t.Context(), &p)
	var lapsed *LapsedError
	if !errors.As(err, &lapsed) || lapsed.Reason != reason {
		t.Errorf("standing: %v, want %q", err, reason)
	}
}

func TestLapsedUsers(t *testing.T) {
	f := newFixture(t)
	f.user(t, "admin")
	ctx, locked := t.Context(), true
	alice, bob := f.user(t, "alice"), f.user(t, "bob")
	token := access.Principal{Kind: access.User, ID: alice, IssuedAt: time.Now().Add(-time.Minute)}
	f.wantLapsed(t, token, "the user's sessions were ended", func() error { return f.db.EndSessions(ctx, meta.Change{}, "alice") })
	if _, err := f.Standing(ctx, &access.Principal{Kind: access.User, ID: alice}); err != nil {
		t.Errorf("a password after sessions were ended: %v", err)
	}
	k := f.key(t, access.Key{UserID: alice, Name: "laptop"})
	withKey := access.Principal{Kind: access.User, ID: alice, KeyID: k.ID}
	f.wantLapsed(t, withKey, "the key is revoked", func() error {
		_, err := f.db.RevokeKey(ctx, meta.Change{}, alice, "laptop")
		return err
	})
	f.wantLapsed(t, access.Principal{Kind: access.User, ID: alice, KeyID: "none"}, "the key is gone", nil)
	foreign := f.key(t, access.Key{UserID: bob, Name: "foreign"})
	f.wantLapsed(t, access.Principal{Kind: access.User, ID: alice, KeyID: foreign.ID}, "the key is not the user's", nil)
	f.wantLapsed(t, access.Principal{Kind: access.User, ID: alice}, "the user is locked", func() error {
		return f.db.SetUser(ctx, meta.Change{}, "alice", meta.UserChange{Locked: &locked})
	})
	f.wantLapsed(t, access.Principal{Kind: access.User, ID: "none"}, "the user is gone", nil)
}

func TestLapsedKeys(t *testing.T) {
	f := newFixture(t)
	here, there := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("11.0.0.1")
	p := f.robot(t, access.Key{Name: "bound", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	for _, address := range []netip.Addr{here, netip.AddrFrom16(here.As16())} {
		p.Address = address
		if _, err := f.Standing(t.Context(), &p); err != nil {
			t.Errorf("from %v: %v", address, err)
		}
	}
	for _, address := range []netip.Addr{there, {}} {
		p.Address = address
		f.wantLapsed(t, p, "the key is not for this address", nil)
	}
	f.wantLapsed(t, f.robot(t, access.Key{Name: "old", ExpiresAt: time.Now().Add(-time.Second)}), "the key has expired", nil)
	// No change tells of this end: the clock does.
	soon := f.robot(t, access.Key{Name: "soon", ExpiresAt: time.Now().Add(300 * time.Millisecond)})
	f.wantLapsed(t, soon, "the key has expired", func() error { time.Sleep(350 * time.Millisecond); return nil })
}

func TestLapsedProjects(t *testing.T) {
	f := newFixture(t)
	rule := must[access.TrustRule](t)(f.db.CreateTrustRule(t.Context(), meta.Change{}, access.TrustRule{
		ProjectID: f.project.ID, Name: "gh", Issuer: "https://i", Audience: "a", Role: access.Writer}))
	job := access.Principal{Kind: access.Workload, ID: rule.ID}
	robot := f.robot(t, access.Key{Name: "ci"})
	f.wantLapsed(t, robot, "the project is deleted", func() error {
		_, err := f.db.DeleteProject(t.Context(), meta.Change{}, f.project.ID)
		return err
	})
	f.wantLapsed(t, job, "the project is deleted", nil)
	if err := f.db.RestoreProject(t.Context(), meta.Change{}, f.project.ID); err != nil {
		t.Fatal(err)
	}
	f.wantLapsed(t, job, "the trust rule is gone", func() error {
		return f.db.DeleteTrustRule(t.Context(), meta.Change{}, f.project.ID, "gh")
	})
	f.wantLapsed(t, robot, "the key is gone", func() error {
		if _, err := f.db.DeleteProject(t.Context(), meta.Change{}, f.project.ID); err != nil {
			return err
		}
		_, _, err := f.db.PurgeProjects(t.Context(), time.Now().Add(time.Minute), 1000)
		return err
	})
}

func TestStandings(t *testing.T) {
	f := newFixture(t)
	robot := f.robot(t, access.Key{Name: "ci", Prefixes: []string{"acme/app"}})
	s := must[Standing](t)(f.Standing(t.Context(), &robot))
	want := access.Grant{ProjectID: f.project.ID, Role: access.Writer}
	if s.Subject.Name != "acme/ci" || len(s.Subject.Grants) != 1 || s.Subject.Grants[0] != want || s.Cap() != access.Writer ||
		!s.Covers("acme/app/x") || s.Covers("acme/apps") || s.Covers("") {
		t.Errorf("a robot stands as %+v", s)
	}
	rule := must[access.TrustRule](t)(f.db.CreateTrustRule(t.Context(), meta.Change{}, access.TrustRule{
		ProjectID: f.project.ID, Name: "gh", Issuer: "https://i", Audience: "a", Role: access.Reader, Prefixes: []string{"acme/app"}}))
	s = must[Standing](t)(f.Standing(t.Context(), &access.Principal{Kind: access.Workload, ID: rule.ID}))
	if s.Subject.Name != "acme/gh" || len(s.Subject.Grants) != 1 || s.Subject.Grants[0].Role != access.Reader || !s.Covers("acme/app") || s.Covers("acme") {
		t.Errorf("a workload stands as %+v", s)
	}
	alice := f.user(t, "alice")
	capped := f.key(t, access.Key{UserID: alice, Name: "capped", Role: access.Reader})
	free := f.key(t, access.Key{UserID: alice, Name: "free"})
	for key, role := range map[string]access.Role{capped.ID: access.Reader, free.ID: access.Owner, "": access.Owner} {
		s := must[Standing](t)(f.Standing(t.Context(), &access.Principal{Kind: access.User, ID: alice, KeyID: key}))
		if s.Cap() != role || s.Subject.Name != "alice" || !s.Covers("") {
			t.Errorf("a user stands as %+v, may be %v", s, s.Cap())
		}
	}
	if s := must[Standing](t)(f.Standing(t.Context(), &access.Principal{})); s.Subject.Kind != access.Anonymous || s.Subject.Admin {
		t.Errorf("the anonymous stand as %+v", s)
	}
	if s := must[Standing](t)(f.Standing(t.Context(), &access.Principal{Kind: access.Local})); !s.Subject.Admin {
		t.Errorf("the local stand as %+v", s)
	}
}

// TestStandingInABrokenDatabase: not to know is not to have lapsed.
func TestStandingInABrokenDatabase(t *testing.T) {
	f := newFixture(t)
	robot := f.robot(t, access.Key{Name: "ci"})
	if err := f.db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := f.Standing(t.Context(), &robot)
	var lapsed *LapsedError
	if err == nil || errors.As(err, &lapsed) {
		t.Errorf("standing: %v", err)
	}
}
