package jobs_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-registry/berth/internal/jobs"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/meta/metatest"
	"github.com/berth-registry/berth/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// engines run a test with the rows on each of them. open gives one more process's
// view of the same rows.
func engines(t *testing.T, test func(t *testing.T, open func() *meta.DB)) {
	t.Helper()
	t.Parallel()
	for name, where := range map[string]func(t *testing.T) meta.Options{
		"SQLite": func(t *testing.T) meta.Options {
			return meta.Options{Path: filepath.Join(t.TempDir(), "berth.db"), Shared: true}
		},
		"PostgreSQL": func(t *testing.T) meta.Options { return meta.Options{Postgres: metatest.URL(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := where(t)
			test(t, func() *meta.DB {
				db, err := meta.Open(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { db.Close() })
				return db
			})
		})
	}
}

// replica runs jobs until stop is called, which waits for their end.
func replica(t *testing.T, o jobs.Options) (r *jobs.Runner, stop func()) {
	t.Helper()
	if o.Lease == 0 {
		o.Lease = 3 * time.Second
	}
	if o.Poll == 0 {
		o.Poll = 20 * time.Millisecond
	}
	r = jobs.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return r, stop
}

// row is that of the job "work".
func row(t *testing.T, s jobs.Store) meta.Job {
	t.Helper()
	rows, err := s.Jobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range rows {
		if j.Name == "work" {
			return j
		}
	}
	return meta.Job{}
}

func work(every time.Duration, run func(context.Context) (any, error)) []jobs.Job {
	return []jobs.Job{{Name: "work", Every: every, Run: run}}
}

// until waits for something that is sure to come.
func until(t *testing.T, what string, come func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !come(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal(what + " does not come")
		}
	}
}

// TestOneAtATime has replicas do a job as fast as they can: never two at once,
// and each takes part.
func TestOneAtATime(t *testing.T) {
	engines(t, func(t *testing.T, open func() *meta.DB) {
		var under, together atomic.Int32
		var did [3]atomic.Int32
		var stops []func()
		for i := range did {
			_, stop := replica(t, jobs.Options{Store: open(), Jobs: work(time.Millisecond, func(context.Context) (any, error) {
				if under.Add(1) > 1 {
					together.Add(1)
				}
				time.Sleep(5 * time.Millisecond)
				under.Add(-1)
				did[i].Add(1)
				return nil, nil
			})})
			stops = append(stops, stop)
		}
		until(t, "a turn of each", func() bool { return did[0].Load() > 4 && did[1].Load() > 4 && did[2].Load() > 4 })
		for _, stop := range stops {
			stop()
		}
		if together.Load() != 0 {
			t.Errorf("%d runs began while another was under way", together.Load())
		}
		if j, sum := row(t, open()), did[0].Load()+did[1].Load()+did[2].Load(); j.Version != int64(sum) || j.Finished != j.Version || !j.LeaseUntil.IsZero() {
			t.Errorf("after %d runs: %+v", sum, j)
		}
	})
}

// TestTakeover: a replica that is killed in the middle of a job leaves it to
// another, when its lease has ended and not before.
func TestTakeover(t *testing.T) {
	engines(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		// What a killed process leaves behind.
		if _, err := open().LeaseJob(t.Context(), "work", time.Hour, time.Second); err != nil {
			t.Fatal(err)
		}
		taken := make(chan meta.Job, 1)
		replica(t, jobs.Options{Store: db, Jobs: work(time.Hour, func(context.Context) (any, error) {
			j := row(t, db)
			taken <- j
			return map[string]int{"n": 7}, nil
		})})
		before := row(t, db)
		j := <-taken
		if j.Version != 2 || j.StartedAt.Before(before.LeaseUntil) {
			t.Errorf("the lease %+v was taken over as %+v", before, j)
		}
		until(t, "its end", func() bool { return row(t, db).Finished == 2 })
		if j := row(t, db); j.Result != `{"n":7}` || j.DueAt != j.FinishedAt.Add(time.Hour) {
			t.Errorf("finished as %+v", j)
		}
	})
}

// TestLostLease: a run ends when another has taken over, and changes nothing of
// what that one notes.
func TestLostLease(t *testing.T) {
	engines(t, func(t *testing.T, open func() *meta.DB) {
		// Nothing prolongs this replica's lease; its clock says that it stands.
		frozen := &store{Store: open(), renew: func() error { return nil }}
		cause := make(chan error, 1)
		told := make(chan error, 1)
		_, stop := replica(t, jobs.Options{Store: frozen, Lease: time.Second, Jobs: work(time.Hour, func(ctx context.Context) (any, error) {
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return "late", ctx.Err()
		}), OnRun: func(_ string, _ time.Duration, err error) { told <- err }})
		other := open()
		until(t, "its run", func() bool { return row(t, other).Version == 1 })
		until(t, "the end of its lease", func() bool {
			_, err := other.LeaseJob(t.Context(), "work", time.Hour, time.Minute)
			return err == nil
		})
		frozen.set(nil)
		if err := <-cause; !errors.Is(err, jobs.ErrLost) {
			t.Errorf("the run ended with %v", err)
		}
		if err := <-told; !errors.Is(err, jobs.ErrLost) {
			t.Errorf("the run is told of with %v", err)
		}
		stop()
		if j := row(t, other); j.Version != 2 || j.LeaseUntil.IsZero() || j.Finished != 0 || j.Result != "" {
			t.Errorf("who lost the lease changed the row: %+v", j)
		}
	})
}

// TestOwnClock: who cannot prolong its lease stops before another may begin.
func TestOwnClock(t *testing.T) {
	engines(t, func(t *testing.T, open func() *meta.DB) {
		cut := &store{Store: open(), renew: func() error { return meta.ErrUnavailable }}
		ended := make(chan time.Time, 1)
		_, stop := replica(t, jobs.Options{Store: cut, Lease: 3 * time.Second, Jobs: work(time.Hour, func(ctx context.Context) (any, error) {
			<-ctx.Done()
			ended <- time.Now()
			return nil, context.Cause(ctx)
		})})
		db := open()
		until(t, "its run", func() bool { return row(t, db).Version == 1 })
		lease := row(t, db).LeaseUntil
		if at := <-ended; at.After(lease) {
			t.Errorf("it ended at %v, its lease at %v", at, lease)
		}
		stop()
	})
}

// TestRenewal: a run may be longer than its lease, and what it reports is seen.
func TestRenewal(t *testing.T) {
	engines(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		run := func(ctx context.Context) (any, error) {
			jobs.Report(ctx, map[string]int{"done": 3})
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(4 * time.Second):
				return "whole", nil
			}
		}
		for range 2 {
			replica(t, jobs.Options{Store: open(), Lease: 1500 * time.Millisecond, Jobs: work(time.Hour, run)})
		}
		until(t, "progress", func() bool { return row(t, db).Progress == `{"done":3}` })
		until(t, "the end", func() bool { return row(t, db).Finished > 0 })
		if j := row(t, db); j.Version != 1 || j.Result != `"whole"` || j.Failure != "" || j.Progress != "" {
			t.Errorf("finished as %+v", j)
		}
	})
}

// TestStop: a runner that ends stops its jobs and gives their leases back, so
// that another goes on at once.
func TestStop(t *testing.T) {
	engines(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		o := jobs.Options{Store: open(), Lease: time.Hour, Jobs: work(time.Hour, func(ctx context.Context) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})}
		_, stop := replica(t, o)
		until(t, "its run", func() bool { return row(t, db).Version == 1 })
		stop()
		if j := row(t, db); !j.LeaseUntil.IsZero() || j.Finished != 0 || j.Failures != 0 {
			t.Errorf("stopped as %+v", j)
		}
		o.Store = open()
		o.Jobs = work(time.Hour, func(context.Context) (any, error) { return nil, nil })
		replica(t, o)
		until(t, "the next run", func() bool { return row(t, db).Finished == 2 })
	})
}

// TestStopBounded: a job that does not stop keeps no server from ending, and its
// lease from nobody.
func TestStopBounded(t *testing.T) {
	engines(t, func(t *testing.T, open func() *meta.DB) {
		db, end := open(), make(chan struct{})
		_, stop := replica(t, jobs.Options{Store: open(), Lease: time.Hour, Stop: 50 * time.Millisecond,
			Jobs: work(time.Hour, func(context.Context) (any, error) {
				<-end
				return nil, nil
			})})
		until(t, "its run", func() bool { return row(t, db).Version == 1 })
		stop()
		if j := row(t, db); j.LeaseUntil.IsZero() {
			t.Errorf("the lease of a run under way was given back: %+v", j)
		}
		close(end)
		until(t, "its end", func() bool { return row(t, db).Finished == 1 })
	})
}

// TestFailure: what fails is tried again, later each time, and is told of.
func TestFailure(t *testing.T) {
	engines(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		var runs atomic.Int32
		var mu sync.Mutex
		var told []error
		r, _ := replica(t, jobs.Options{Store: db, Jobs: work(time.Hour, func(context.Context) (any, error) {
			switch runs.Add(1) {
			case 1:
				return map[string]int{"n": 1}, errors.New("broken")
			case 2:
				panic("worse")
			case 3:
				return strings.Repeat("x", 20<<10), nil
			}
			return nil, nil
		}), OnRun: func(name string, _ time.Duration, err error) {
			mu.Lock()
			defer mu.Unlock()
			if name != "work" {
				t.Errorf("told of %q", name)
			}
			told = append(told, err)
		}})
		for i, want := range []struct {
			failure, result string
			retry           time.Duration
		}{{"broken", `{"n":1}`, 5 * time.Second}, {"panic in a background job: worse", "", 10 * time.Second},
			{"the job's result: it has 20482 bytes", "", 20 * time.Second}, {"", "", time.Hour}} {
			if i > 0 {
				if _, err := r.Request(t.Context(), "work"); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "the end of a run", func() bool { return row(t, db).Finished == int64(i+1) })
			j := row(t, db)
			if !strings.HasPrefix(j.Failure, want.failure) || (j.Failure == "") != (want.failure == "") || j.Result != want.result || j.DueAt.Sub(j.FinishedAt) != want.retry {
				t.Errorf("run %d ended as %+v, due after %v", i+1, j, j.DueAt.Sub(j.FinishedAt))
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if len(told) != 4 || told[0] == nil || told[1] == nil || told[2] == nil || told[3] != nil {
			t.Errorf("told of %v", told)
		}
	})
}

// TestRequest: a job that is asked for is done at once, in the process that was
// asked without waiting for its next look; during a run it is done once more.
func TestRequest(t *testing.T) {
	engines(t, func(t *testing.T, open func() *meta.DB) {
		db, gate := open(), make(chan struct{}, 10)
		gate <- struct{}{}
		r, _ := replica(t, jobs.Options{Store: db, Poll: time.Hour, Jobs: work(time.Hour, func(context.Context) (any, error) {
			<-gate
			return nil, nil
		})})
		until(t, "the first run", func() bool { return row(t, db).Finished == 1 })
		version, err := r.Request(t.Context(), "work")
		if version != 1 || err != nil {
			t.Fatal(version, err)
		}
		until(t, "the second run", func() bool { return row(t, db).Version == 2 })
		for range 3 { // for all of whom one run is enough
			if version, err = r.Request(t.Context(), "work"); version != 2 || err != nil {
				t.Fatal(version, err)
			}
		}
		gate <- struct{}{}
		gate <- struct{}{}
		j, err := jobs.Await(t.Context(), db, "work", version, nil)
		if err != nil || j.Finished != 3 {
			t.Errorf("waited for %+v, %v", j, err)
		}
		if j := row(t, db); j.Version != 3 || j.DueAt != j.FinishedAt.Add(time.Hour) {
			t.Errorf("after that: %+v", j)
		}
	})
}

// TestTry does a job outside of Run, unless another replica is at it.
func TestTry(t *testing.T) {
	engines(t, func(t *testing.T, open func() *meta.DB) {
		db, runs := open(), 0
		r := jobs.New(jobs.Options{Store: open(), Jobs: work(time.Hour, func(context.Context) (any, error) {
			runs++
			return "done", nil
		})})
		l, err := db.LeaseJob(t.Context(), "work", time.Hour, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if done, err := r.Try(t.Context(), "work"); done || err != nil || runs != 0 {
			t.Errorf("beside another: %v, %v, %d runs", done, err, runs)
		}
		if err := db.ReleaseJob(t.Context(), "work", l.Version); err != nil {
			t.Fatal(err)
		}
		if done, err := r.Try(t.Context(), "work"); !done || err != nil || runs != 1 {
			t.Errorf("alone: %v, %v, %d runs", done, err, runs)
		}
		if j := row(t, db); j.Finished != 2 || j.Result != `"done"` {
			t.Errorf("finished as %+v", j)
		}
		if _, err := r.Try(t.Context(), "play"); err == nil {
			t.Error("an unknown job was done")
		}
	})
}

// TestDatabaseAway: the end of a run is noted when the database is back, and
// looking for jobs goes on.
func TestDatabaseAway(t *testing.T) {
	engines(t, func(t *testing.T, open func() *meta.DB) {
		db := open()
		away := &store{Store: db}
		away.fail(3)
		replica(t, jobs.Options{Store: away, Jobs: work(time.Hour, func(context.Context) (any, error) {
			away.fail(3)
			return "good", nil
		})})
		until(t, "its end", func() bool { return row(t, db).Finished == 1 })
		if j := row(t, db); j.Version != 1 || j.Result != `"good"` || away.left.Load() > 0 {
			t.Errorf("finished as %+v, %d failures left", j, away.left.Load())
		}
	})
}

// store is one that can be out of reach.
type store struct {
	jobs.Store
	mu    sync.Mutex
	renew func() error // in place of the store's
	left  atomic.Int32 // calls that will fail
}

func (s *store) fail(n int32) { s.left.Store(n) }

func (s *store) broken() error {
	if s.left.Add(-1) >= 0 {
		return meta.ErrUnavailable
	}
	return nil
}

func (s *store) set(renew func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew = renew
}

func (s *store) Jobs(ctx context.Context) ([]meta.Job, error) {
	if err := s.broken(); err != nil {
		return nil, err
	}
	return s.Store.Jobs(ctx)
}

func (s *store) FinishJob(ctx context.Context, name string, version int64, end meta.JobEnd) error {
	if err := s.broken(); err != nil {
		return err
	}
	return s.Store.FinishJob(ctx, name, version, end)
}

func (s *store) RenewJob(ctx context.Context, name string, version int64, ttl time.Duration, progress string) error {
	s.mu.Lock()
	renew := s.renew
	s.mu.Unlock()
	if renew != nil {
		return renew()
	}
	return s.Store.RenewJob(ctx, name, version, ttl, progress)
}
