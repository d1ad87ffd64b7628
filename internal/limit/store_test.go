package limit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/registry"
)

// faulty is a real database that counts, and fails or hangs when told to.
type faulty struct {
	*meta.DB
	calls atomic.Int64
	fails atomic.Bool
	hangs atomic.Bool
}

var errBroken = errors.New("the disk is gone")

func (f *faulty) trouble(ctx context.Context) error {
	f.calls.Add(1)
	if f.hangs.Load() {
		<-ctx.Done()
	}
	if f.fails.Load() {
		return errBroken
	}
	return nil
}

func (f *faulty) RateUsage(ctx context.Context, bucket string) ([]byte, int64, error) {
	if err := f.trouble(ctx); err != nil {
		return nil, 0, err
	}
	return f.DB.RateUsage(ctx, bucket)
}

func (f *faulty) SwapRateUsage(ctx context.Context, bucket string, slots []byte, version int64) (bool, error) {
	if err := f.trouble(ctx); err != nil {
		return false, err
	}
	return f.DB.SwapRateUsage(ctx, bucket, slots, version)
}

func (w *world) faulty() (*faulty, *Limiter) {
	f := &faulty{DB: w.database()}
	return f, w.over(f.DB, f)
}

// TestFewTrips: a request costs no round trip of its own, refused ones none.
func TestFewTrips(t *testing.T) {
	w := newWorld(t, perProject(10_000))
	f, l := w.faulty()
	w.want("in one slot", passing(t, l, nobody, "acme/app", 9000), 9000)
	if calls := f.calls.Load(); calls > 2*(9000/50+50) {
		t.Errorf("%d questions to the database for 9000 requests", calls)
	}
	passing(t, l, nobody, "acme/app", 10_000)
	before := f.calls.Load()
	for range 10_000 {
		w.want("of a used up rate", passing(t, l, nobody, "acme/app", 1), 0)
	}
	if calls := f.calls.Load() - before; calls != 0 {
		t.Errorf("%d questions to the database for refused requests", calls)
	}
	w.move(time.Second)
	passing(t, l, nobody, "acme/app", 1)
	passing(t, l, nobody, "acme/app", 1)
	if calls := f.calls.Load() - before; calls != 1 {
		t.Errorf("%d questions to the database a second later, want 1", calls)
	}
}

// TestNoRatesCostNothing: without rates there is nothing to count.
func TestNoRatesCostNothing(t *testing.T) {
	w := newWorld(t)
	f, l := w.faulty()
	w.want("without rates", passing(t, l, user("alice", ""), "acme/app", 1000), 1000)
	if calls := f.calls.Load(); calls != 0 || len(l.buckets) != 0 {
		t.Errorf("%d questions to the database, %d buckets", calls, len(l.buckets))
	}
}

// TestDatabaseFails: requests pass, are logged once a minute, and are charged
// when the database is back.
func TestDatabaseFails(t *testing.T) {
	w := newWorld(t, rate(access.PerProject, access.Requests, time.Hour, 50))
	f, l := w.faulty()
	var log bytes.Buffer
	l.log = slog.New(slog.NewTextHandler(&log, nil))
	f.fails.Store(true)
	for range 40 {
		w.want("while the database fails", passing(t, l, nobody, "acme/app", 1), 1)
		w.move(100 * time.Millisecond)
	}
	if calls := f.calls.Load(); calls < 2 || calls > 5 {
		t.Errorf("a failing database is asked %d times in 4 seconds", calls)
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), errBroken.Error()) {
		t.Errorf("log: %s", log.String())
	}
	f.fails.Store(false)
	w.move(time.Second)
	w.want("of the rest", passing(t, l, nobody, "acme/app", 100), 10)
	f.fails.Store(true)
	w.move(time.Minute)
	w.want("when it fails again", passing(t, l, nobody, "acme/app", 100), 100)
	if lines := strings.Count(log.String(), "\n"); lines != 2 {
		t.Errorf("log: %s", log.String())
	}
}

// TestDatabaseHangs: requests wait for a while and then pass.
func TestDatabaseHangs(t *testing.T) {
	w := newWorld(t, perProject(50))
	f, l := w.faulty()
	l.patience = 50 * time.Millisecond
	f.hangs.Store(true)
	f.fails.Store(true)
	begin := time.Now()
	w.want("while the database hangs", passing(t, l, nobody, "acme/app", 100), 100)
	if took := time.Since(begin); took < l.patience || took > 100*l.patience {
		t.Errorf("100 requests take %v", took)
	}
}

// TestCallerGoes: who waits for a database that hangs need not.
func TestCallerGoes(t *testing.T) {
	w := newWorld(t, perProject(50))
	f, l := w.faulty()
	l.patience = time.Second
	f.hangs.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ask(ctx, l, nobody, "acme/app"); !errors.Is(err, context.Canceled) {
		t.Errorf("a request whose client is gone: %v", err)
	}
}

// TestDamagedRow: a row that cannot be read begins anew.
func TestDamagedRow(t *testing.T) {
	w := newWorld(t, perProject(5))
	l := w.server()
	w.want("at first", passing(t, l, nobody, "acme/app", 100), 5)
	w.exec(`UPDATE rate_usage SET slots = $1`, []byte{0xff})
	w.move(time.Second)
	w.want("after damage", passing(t, l, nobody, "acme/app", 100), 5)
}

// TestBuckets: memory is bounded, and what makes room is settled.
func TestBuckets(t *testing.T) {
	w := newWorld(t, rate(access.PerAddress, access.Requests, time.Hour, 2000))
	l := w.server()
	l.most = 8
	for i := range 400 {
		id := from(fmt.Sprint("203.0.113.", i%100))
		w.want("within the limit", passing(t, l, id, "acme/app", 5), 5)
		if n := len(l.buckets); n > l.most {
			t.Fatalf("%d buckets", n)
		}
	}
	l.Close(t.Context())
	if used := w.used(); used != 2000 {
		t.Errorf("%d are counted, want 2000", used)
	}
}

// TestForgets: buckets that nobody uses leave memory, old rows the database.
func TestForgets(t *testing.T) {
	w := newWorld(t, rate(access.PerAddress, access.Requests, time.Minute, 1000))
	l := w.server()
	for i := range 100 {
		passing(t, l, from(fmt.Sprint("203.0.113.", i)), "acme/app", 1)
	}
	l.settle(t.Context())
	if len(l.buckets) != 100 {
		t.Errorf("%d buckets at first", len(l.buckets))
	}
	w.move(quiet)
	l.settle(t.Context())
	l.settle(t.Context())
	if len(l.buckets) != 0 {
		t.Errorf("%d buckets after a minute", len(l.buckets))
	}
	w.move(24 * time.Hour)
	l.prune(t.Context(), w.now().Add(-pruneAge))
	if used := w.used(); used != 100 {
		t.Errorf("rows of a day ago: %d left", used)
	}
	w.move(time.Hour)
	l.prune(t.Context(), w.now().Add(-pruneAge))
	if used := w.used(); used != 0 {
		t.Errorf("old rows: %d left", used)
	}
}

// TestRun: settling and pruning go on by themselves until the end.
func TestRun(t *testing.T) {
	w := newWorld(t, rate(access.PerProject, access.Requests, time.Hour, 10_000))
	w.exec(`INSERT INTO rate_usage (bucket, slots, version, updated_at) VALUES ('old', x'', 1, 1)`)
	l := w.server()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(ctx)
	}()
	passing(t, l, nobody, "acme/app", 100)
	w.move(time.Minute)
	for begin := time.Now(); w.used() != 100; time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("%d are counted, want 100", w.used())
		}
	}
	cancel()
	<-ended
	var old int
	if err := w.rows.QueryRow(`SELECT COUNT(*) FROM rate_usage WHERE bucket = 'old'`).Scan(&old); err != nil || old != 0 {
		t.Errorf("%d old rows, %v", old, err)
	}
}

// TestLateOutcome: a lease that arrives when its slot has passed is given back;
// one that arrives early makes the slot pass.
func TestLateOutcome(t *testing.T) {
	r := rule{key{access.PerProject, "p", access.Requests, time.Minute}, 1000, "acme"}
	now := r.begins(100)
	late := bucket{key: r.key, slot: 100, left: -2}
	late.settle(outcome{slot: 99, taken: 5}, nil, nil, &r, now)
	if late.slot != 100 || late.left != -2 || !slices.Equal(late.owed, []slot{{99, -5}}) {
		t.Errorf("late: slot %d, %d left, owes %v", late.slot, late.left, late.owed)
	}
	early := bucket{key: r.key, slot: 99, left: 3}
	early.settle(outcome{slot: 100, taken: 5}, nil, nil, &r, now)
	if early.slot != 100 || early.left != 5 || !slices.Equal(early.owed, []slot{{99, -3}}) {
		t.Errorf("early: slot %d, %d left, owes %v", early.slot, early.left, early.owed)
	}
}

func TestUsage(t *testing.T) {
	var u usage
	for _, s := range []slot{{100, 5}, {90, 3}, {110, 1 << 40}, {100, 2}, {90, -3}, {95, -7}, {110, 1}} {
		u = u.add(s.at, s.n)
	}
	if want := (usage{{100, 7}, {110, 1<<40 + 1}}); !slices.Equal(u, want) {
		t.Errorf("usage %v, want %v", u, want)
	}
	got, err := decodeUsage(u.encode())
	if err != nil || !slices.Equal(got, u) {
		t.Errorf("decoded %v, %v", got, err)
	}
	if n := len(u.encode()); n > 10 {
		t.Errorf("encoded in %d bytes", n)
	}
	for at, n := range map[int64]int{110: 2, 160: 2, 161: 1, 170: 1, 171: 0, 50: 2, 49: 1, 40: 1, 39: 0} {
		if got := slices.Clone(u).within(at); len(got) != n {
			t.Errorf("within the window of %d: %v", at, got)
		}
	}
	if at := u.free(7); at != 171 {
		t.Errorf("7 are free in slot %d", at)
	}
	if at := u.free(1 << 41); at != 0 {
		t.Errorf("more than was used is free in slot %d", at)
	}
	if u = u.add(100, math.MaxInt64).add(100, math.MaxInt64); u.sum() < 0 || u.sum() > 2*maxCount {
		t.Errorf("sum %d", u.sum())
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(usage{{1, 1}, {2, 300}}.encode())
	f.Add([]byte{0, 0})
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := decodeUsage(b)
		if err != nil {
			return
		}
		again, err := decodeUsage(u.encode())
		if err != nil || !slices.Equal(again, u) || !slices.IsSortedFunc(u, func(a, b slot) int { return int(a.at - b.at) }) {
			t.Errorf("%v is encoded and decoded to %v, %v", u, again, err)
		}
	})
}

// BenchmarkAllowed is one HTTP request that passes: two checks and an observer.
func BenchmarkAllowed(b *testing.B) {
	for name, rates := range map[string][]access.Rate{
		"no rates": nil,
		"rates": {
			rate(access.PerAddress, access.Requests, time.Minute, 1<<40), rate(access.PerIdentity, access.Requests, time.Hour, 1<<40),
			rate(access.PerProject, access.Requests, 24*time.Hour, 1<<40), rate(access.PerProject, access.Bytes, 24*time.Hour, 1<<50),
		},
	} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, rates...)
			db := w.database()
			l := New(directory.New(db), db, Options{})
			id, op := user("alice", ""), registry.Op{Action: registry.ManifestRead, Repo: "acme/app"}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					before, after, observe := l.For(id)
					done := observe(b.Context(), op)
					if err := errors.Join(before(b.Context(), op), after(b.Context(), op)); err != nil {
						b.Error(err)
					}
					done(1000, nil)
				}
			})
			l.Close(b.Context())
		})
	}
}
