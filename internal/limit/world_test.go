package limit

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/registry"
)

// world is a database that servers share, and the clock of all of them.
type world struct {
	testing.TB
	path   string
	rows   *sql.DB
	millis atomic.Int64
}

func newWorld(t testing.TB, rates ...access.Rate) *world {
	t.Helper()
	w := &world{TB: t, path: metatest.File(t)}
	w.millis.Store(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	w.database()
	rows, err := sql.Open("sqlite", "file:"+w.path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rows.Close() })
	w.rows = rows
	w.exec(`INSERT INTO plans (id, name, rates, max_blob, max_manifest, storage, repositories, created_at) VALUES ('own', 'own', '[]', 0, 0, 0, 0, 0)`)
	w.exec(`INSERT INTO organizations (id, name, created_at) VALUES ('o', 'org', 0)`)
	for _, name := range []string{"acme", "other"} {
		w.exec(`INSERT INTO projects (id, name, organization_id, visibility, newcomers, claimed, created_at) VALUES ($1, $2, 'o', 'public', '', TRUE, 0)`, "p-"+name, name)
	}
	for _, name := range []string{"alice", "root"} {
		w.exec(`INSERT INTO users (id, name, password, admin, locked, valid_after, created_at) VALUES ($1, $2, '', $3, FALSE, 0, 0)`, "u-"+name, name, name == "root")
	}
	w.setRates(access.DefaultPlan, rates...)
	return w
}

func (w *world) now() time.Time       { return time.UnixMilli(w.millis.Load()) }
func (w *world) move(d time.Duration) { w.millis.Add(d.Milliseconds()) }

func (w *world) exec(query string, args ...any) {
	w.Helper()
	if _, err := w.rows.Exec(query, args...); err != nil {
		w.Fatalf("%s: %v", query, err)
	}
}

// setRates changes a plan; servers see it once the clock has moved a second.
func (w *world) setRates(plan string, rates ...access.Rate) {
	w.Helper()
	text, err := json.Marshal(rates)
	if err != nil {
		w.Fatal(err)
	}
	w.exec(`UPDATE plans SET rates = $2 WHERE id = $1`, plan, text)
	w.exec(`UPDATE access_generation SET value = value + 1`)
	w.move(time.Second)
}

// database opens the database as another process would.
func (w *world) database() *meta.DB {
	w.Helper()
	db, err := meta.Open(w.Context(), meta.Options{Path: w.path, Shared: true, Now: w.now})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { db.Close() })
	return db
}

// server is one limiter over a database of its own.
func (w *world) server() *Limiter {
	w.Helper()
	db := w.database()
	return w.over(db, db)
}

// over is a limiter that never gives the database up for slow: the machine may
// be busy with other tests.
func (w *world) over(db *meta.DB, store Store) *Limiter {
	l := New(directory.New(db), store, Options{Now: w.now})
	l.patience = 5 * time.Minute
	return l
}

// used is what the database says was used of all rates together.
func (w *world) used() (n int64) {
	w.Helper()
	rows, err := w.rows.Query(`SELECT bucket, slots FROM rate_usage`)
	if err != nil {
		w.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var bucket string
		var slots []byte
		if err := rows.Scan(&bucket, &slots); err != nil {
			w.Fatal(err)
		}
		u, err := decodeUsage(slots)
		if err != nil {
			w.Fatalf("%s: %v", bucket, err)
		}
		n += u.sum()
	}
	if err := rows.Err(); err != nil {
		w.Fatal(err)
	}
	return n
}

func rate(per access.Scope, unit access.Unit, window time.Duration, amount int64) access.Rate {
	return access.Rate{Per: per, Unit: unit, Window: window, Amount: amount}
}

func perProject(amount int64) access.Rate {
	return rate(access.PerProject, access.Requests, time.Minute, amount)
}

// from is an anonymous caller.
func from(address string) auth.Identity {
	return auth.Identity{Principal: access.Principal{Address: netip.MustParseAddr(address)}}
}

func user(name, key string) auth.Identity {
	return auth.Identity{Principal: access.Principal{
		Kind: access.User, ID: "u-" + name, Name: name, KeyID: key, Address: netip.MustParseAddr("203.0.113.7")}}
}

var nobody = from("203.0.113.7")

// ask makes one HTTP request, as far as checks go.
func ask(ctx context.Context, l *Limiter, id auth.Identity, repo string) error {
	before, after, _ := l.For(id)
	op := registry.Op{Action: registry.ManifestRead, Repo: repo}
	if err := before(ctx, op); err != nil {
		return err
	}
	return after(ctx, op)
}

// refusedBy is the limit of a refusal, nil where err is nil.
func refusedBy(t testing.TB, err error) *registry.Error {
	t.Helper()
	if err == nil {
		return nil
	}
	var e *registry.Error
	if !errors.As(err, &e) || e.Code != registry.TooManyRequests || e.Limit == nil || e.Limit.RetryAfter <= 0 ||
		e.Limit.RetryAfter%time.Second != 0 || e.Limit.Amount <= 0 || e.Limit.Window <= 0 {
		t.Errorf("refused with %v", err)
		return &registry.Error{Limit: &registry.Limit{}}
	}
	return e
}

// passing counts how many of at most n requests pass, until one is refused.
func passing(t testing.TB, l *Limiter, id auth.Identity, repo string, n int) (passed int) {
	t.Helper()
	for ; passed < n; passed++ {
		if refusedBy(t, ask(t.Context(), l, id, repo)) != nil {
			break
		}
	}
	return passed
}

func (w *world) want(what string, got, want int) {
	w.Helper()
	if got != want {
		w.Errorf("%s: %d pass, want %d", what, got, want)
	}
}
