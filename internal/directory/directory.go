// Package directory remembers what decisions about access are made from. What
// it remembers is worth nothing once the database's generation has moved, so
// that a decision is never older than that number.
package directory

import (
	"context"
	"errors"
	"sync"

	"github.com/berth-registry/berth/internal/access"
)

// maxRemembered bounds the entries of each kind, maxKey the bytes of what they
// are looked up by: clients choose it, and nothing that there is has a longer one.
const (
	maxRemembered = 1 << 14
	maxKey        = 256
)

// Store is the database that is remembered; its look-ups fail with
// access.ErrNotFound.
type Store interface {
	Generation(ctx context.Context) (int64, error)
	ProjectAccess(ctx context.Context, name string) (access.Project, error)
	ProjectAccessByID(ctx context.Context, id string) (access.Project, error)
	UserAccess(ctx context.Context, id string) (access.Subject, error)
	Login(ctx context.Context, name string) (access.Login, error)
	KeyByHash(ctx context.Context, hash string) (access.Key, error)
	KeyByID(ctx context.Context, id string) (access.Key, error)
	TrustRuleByID(ctx context.Context, id string) (access.TrustRule, error)
	PlanByID(ctx context.Context, id string) (access.Plan, error)
	Guarded(ctx context.Context) (bool, error)
}

// Directory answers look-ups from memory where it can. What it returns is
// shared: callers must not change it. It is safe for concurrent use. Every
// method fails with access.ErrNotFound where there is no such thing.
type Directory struct {
	store      Store
	projects   table[access.Project]
	projectIDs table[access.Project]
	users      table[access.Subject]
	logins     table[access.Login]
	hashes     table[access.Key]
	keys       table[access.Key]
	rules      table[access.TrustRule]
	plans      table[access.Plan]
	guarded    table[bool]
	looked     func(hit bool)
}

// New remembers what store says.
func New(store Store) *Directory { return &Directory{store: store, looked: func(bool) {}} }

// OnLook has f told of each look-up, whether it was answered from memory. Call
// it before the first.
func (d *Directory) OnLook(f func(hit bool)) { d.looked = f }

// Remembered is the project as memory has it, which may be out of date; nil:
// nothing is remembered, or there is none. It never asks the database.
func (d *Directory) Remembered(project string) *access.Project {
	e, _ := d.projects.get(project)
	return e.value
}

// Project finds a project by name, also a deleted one.
func (d *Directory) Project(ctx context.Context, name string) (*access.Project, error) {
	return look(ctx, d, &d.projects, name, d.store.ProjectAccess)
}

// ProjectByID finds a project by id, also a deleted one.
func (d *Directory) ProjectByID(ctx context.Context, id string) (*access.Project, error) {
	return look(ctx, d, &d.projectIDs, id, d.store.ProjectAccessByID)
}

// User finds a user with all grants.
func (d *Directory) User(ctx context.Context, id string) (*access.Subject, error) {
	return look(ctx, d, &d.users, id, d.store.UserAccess)
}

// Login finds what the password of a user name is checked against.
func (d *Directory) Login(ctx context.Context, name string) (*access.Login, error) {
	return look(ctx, d, &d.logins, name, d.store.Login)
}

// KeyByHash finds a key by the hex SHA-256 of its secret; it may be revoked or
// expired.
func (d *Directory) KeyByHash(ctx context.Context, hash string) (*access.Key, error) {
	return look(ctx, d, &d.hashes, hash, d.store.KeyByHash)
}

// Key finds a key by id; it may be revoked or expired.
func (d *Directory) Key(ctx context.Context, id string) (*access.Key, error) {
	return look(ctx, d, &d.keys, id, d.store.KeyByID)
}

// TrustRule finds a trust rule.
func (d *Directory) TrustRule(ctx context.Context, id string) (*access.TrustRule, error) {
	return look(ctx, d, &d.rules, id, d.store.TrustRuleByID)
}

// Plan finds a plan; "" is the default one.
func (d *Directory) Plan(ctx context.Context, id string) (*access.Plan, error) {
	if id == "" {
		id = access.DefaultPlan
	}
	return look(ctx, d, &d.plans, id, d.store.PlanByID)
}

// Guarded reports whether anybody was ever given a credential.
func (d *Directory) Guarded(ctx context.Context) (bool, error) {
	yes, err := look(ctx, d, &d.guarded, "", func(ctx context.Context, _ string) (bool, error) { return d.store.Guarded(ctx) })
	return err == nil && *yes, err
}

// table remembers entries of one kind, and that there is none.
type table[V any] struct {
	mu      sync.RWMutex
	entries map[string]entry[V]
}

type entry[V any] struct {
	generation int64
	value      *V // nil: not found
}

// look answers from t while the generation stands, else from the database. The
// generation is asked for first: what is read afterwards is at least as new.
func look[V any](ctx context.Context, d *Directory, t *table[V], key string, load func(context.Context, string) (V, error)) (*V, error) {
	generation, err := d.store.Generation(ctx)
	if err != nil {
		return nil, err
	}
	if e, ok := t.get(key); ok && e.generation == generation {
		d.looked(true)
		return e.result()
	}
	d.looked(false)
	value, err := load(ctx, key)
	e := entry[V]{generation: generation}
	switch {
	case err == nil:
		e.value = &value
	case !errors.Is(err, access.ErrNotFound):
		return nil, err
	}
	if len(key) <= maxKey {
		t.put(key, e)
	}
	return e.result()
}

func (e entry[V]) result() (*V, error) {
	if e.value == nil {
		return nil, access.ErrNotFound
	}
	return e.value, nil
}

func (t *table[V]) get(key string) (entry[V], bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e, ok := t.entries[key]
	return e, ok
}

func (t *table[V]) put(key string, e entry[V]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries == nil {
		t.entries = map[string]entry[V]{}
	}
	if _, known := t.entries[key]; !known && len(t.entries) >= maxRemembered {
		for other := range t.entries {
			delete(t.entries, other)
			break
		}
	}
	t.entries[key] = e
}
