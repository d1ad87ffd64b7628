package metatest

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/meta"
)

const (
	every  = time.Hour
	jobTTL = 30 * time.Second
)

var jobCases = []testCase{
	{"jobs/life", jobLife},
	{"jobs/one at a time", jobRace},
	{"jobs/taken over", jobTakenOver},
	{"jobs/failures", jobFailures},
	{"jobs/asked for", jobAskedFor},
	{"jobs/released", jobReleased},
	{"jobs/done more often from now on", jobMoreOften},
	{"jobs/bounded texts", jobTexts},
}

// job is the row of the one job there is.
func (e *env) job() meta.Job {
	e.Helper()
	list, err := e.db.Jobs(e.Context())
	if e.ok(err); len(list) != 1 {
		e.Fatalf("jobs %+v, want one", list)
	}
	return list[0]
}

func (e *env) wantJob(want meta.Job) {
	e.Helper()
	if got := e.job(); got != want {
		e.Errorf("job %+v, want %+v", got, want)
	}
}

// leaseJob begins a run that is due.
func (e *env) leaseJob() meta.JobLease {
	e.Helper()
	l, err := e.db.LeaseJob(e.Context(), "gc", every, jobTTL)
	e.ok(err)
	return l
}

// noJob checks that no run is due, or one is under way.
func (e *env) noJob() {
	e.Helper()
	_, err := e.db.LeaseJob(e.Context(), "gc", every, jobTTL)
	e.wantErr("lease a job", err, meta.ErrJobLeased)
}

func (e *env) finishJob(l meta.JobLease, end meta.JobEnd) {
	e.Helper()
	e.ok(e.db.FinishJob(e.Context(), "gc", l.Version, end))
}

func jobLife(e *env) {
	list, err := e.db.Jobs(e.Context())
	if e.ok(err); len(list) != 0 {
		e.Errorf("jobs %+v, want none", list)
	}
	start := e.clock.now()
	l := e.leaseJob()
	e.wantJob(meta.Job{Name: "gc", Version: 1, LeaseUntil: start.Add(jobTTL), DueAt: start, StartedAt: start})
	e.clock.move(20 * time.Second)
	e.ok(e.db.RenewJob(e.Context(), "gc", l.Version, jobTTL, `{"n":1}`))
	e.clock.move(20 * time.Second)
	e.noJob()
	e.wantJob(meta.Job{Name: "gc", Version: 1, LeaseUntil: start.Add(50 * time.Second), DueAt: start, StartedAt: start, Progress: `{"n":1}`})
	e.finishJob(l, meta.JobEnd{Result: `{"n":2}`, Next: every})
	end := e.clock.now()
	e.wantJob(meta.Job{Name: "gc", Version: 1, DueAt: end.Add(every), StartedAt: start, Finished: 1, FinishedAt: end, Result: `{"n":2}`})
	e.wantErr("renew a finished run", e.db.RenewJob(e.Context(), "gc", l.Version, jobTTL, ""), meta.ErrJobLeased)
	e.wantErr("finish a run twice", e.db.FinishJob(e.Context(), "gc", l.Version, meta.JobEnd{}), meta.ErrJobLeased)
	e.clock.move(every - time.Millisecond)
	e.noJob()
	e.clock.move(time.Millisecond)
	if l := e.leaseJob(); l.Version != 2 {
		e.Errorf("the second run is %+v", l)
	}
	if j := e.job(); j.Result != `{"n":2}` || j.Finished != 1 {
		e.Errorf("the last run's result is lost while another is under way: %+v", j)
	}
	_, err = e.db.LeaseJob(e.Context(), "upkeep", every, jobTTL)
	e.ok(err)
	list, err = e.db.Jobs(e.Context())
	if e.ok(err); len(list) != 2 || list[0].Name != "gc" || list[1].Name != "upkeep" {
		e.Errorf("jobs %+v, want both", list)
	}
}

func jobRace(e *env) {
	for range 5 {
		var won atomic.Int32
		var lease atomic.Int64
		var racers sync.WaitGroup
		for range 8 {
			racers.Go(func() {
				if l, err := e.db.LeaseJob(e.Context(), "gc", every, jobTTL); err == nil {
					won.Add(1)
					lease.Store(l.Version)
				}
			})
		}
		racers.Wait()
		if won.Load() != 1 {
			e.Fatalf("%d of them do the job at once", won.Load())
		}
		e.finishJob(meta.JobLease{Version: lease.Load()}, meta.JobEnd{})
	}
}

func jobTakenOver(e *env) {
	killed := e.leaseJob()
	e.clock.move(jobTTL - time.Millisecond)
	e.noJob()
	e.clock.move(time.Millisecond)
	next := e.leaseJob()
	if next.Version != killed.Version+1 {
		e.Errorf("the run after %+v is %+v", killed, next)
	}
	e.wantErr("renew a lost lease", e.db.RenewJob(e.Context(), "gc", killed.Version, jobTTL, ""), meta.ErrJobLeased)
	e.wantErr("finish with a lost lease", e.db.FinishJob(e.Context(), "gc", killed.Version, meta.JobEnd{Result: "late"}), meta.ErrJobLeased)
	e.wantErr("release a lost lease", e.db.ReleaseJob(e.Context(), "gc", killed.Version), meta.ErrJobLeased)
	e.finishJob(next, meta.JobEnd{Result: "good", Next: every})
	if j := e.job(); j.Result != "good" || j.Finished != next.Version {
		e.Errorf("finished as %+v", j)
	}
	// Nobody took over: the late holder is still the one.
	e.clock.move(every)
	late := e.leaseJob()
	e.clock.move(10 * jobTTL)
	e.ok(e.db.RenewJob(e.Context(), "gc", late.Version, jobTTL, ""))
	e.noJob()
}

func jobFailures(e *env) {
	for i := range 3 {
		l := e.leaseJob()
		if l.Failures != i {
			e.Errorf("run %d failed %d times before", i, l.Failures)
		}
		e.finishJob(l, meta.JobEnd{Result: "half", Failure: "broken", Next: time.Minute})
		if j := e.job(); j.Failures != i+1 || j.Failure != "broken" || j.Result != "half" || j.Finished != l.Version {
			e.Errorf("after a failure: %+v", j)
		}
		e.clock.move(time.Minute - time.Millisecond)
		e.noJob()
		e.clock.move(time.Millisecond)
	}
	e.finishJob(e.leaseJob(), meta.JobEnd{Next: every})
	if j := e.job(); j.Failures != 0 || j.Failure != "" {
		e.Errorf("after a success: %+v", j)
	}
}

func jobAskedFor(e *env) {
	ask := func(want int64) {
		e.Helper()
		if version, err := e.db.RequestJob(e.Context(), "gc"); version != want || err != nil {
			e.Errorf("asked for a run after %d, %v; want %d", version, err, want)
		}
	}
	ask(0) // one that nobody knows yet
	l := e.leaseJob()
	ask(l.Version) // while it is under way, in the same millisecond
	e.clock.move(time.Second)
	e.noJob()
	e.finishJob(l, meta.JobEnd{Next: every})
	l = e.leaseJob() // once more
	e.clock.move(time.Second)
	e.finishJob(l, meta.JobEnd{Next: every})
	e.noJob()
	ask(l.Version)
	l = e.leaseJob()
	e.clock.move(time.Second)
	ask(l.Version)
	e.clock.move(jobTTL)
	l = e.leaseJob() // takes over, which does what was asked for
	e.finishJob(l, meta.JobEnd{Failure: "broken", Next: every})
	e.noJob()
	ask(l.Version)
	e.leaseJob()
}

func jobReleased(e *env) {
	e.finishJob(e.leaseJob(), meta.JobEnd{Result: "good", Next: every})
	e.clock.move(every)
	l := e.leaseJob()
	e.clock.move(time.Second)
	e.ok(e.db.ReleaseJob(e.Context(), "gc", l.Version))
	if j := e.job(); !j.LeaseUntil.IsZero() || j.Finished != 1 || j.Result != "good" {
		e.Errorf("released as %+v", j)
	}
	e.wantErr("release twice", e.db.ReleaseJob(e.Context(), "gc", l.Version), meta.ErrJobLeased)
	if next := e.leaseJob(); next.Version != l.Version+1 || next.Failures != 0 {
		e.Errorf("the next run is %+v", next)
	}
}

// jobMoreOften: who shortens the time between runs need not wait for the end of
// the long one. A run that failed waits as it was told.
func jobMoreOften(e *env) {
	e.finishJob(e.leaseJob(), meta.JobEnd{Next: 24 * time.Hour})
	e.clock.move(every - time.Millisecond)
	e.noJob()
	e.clock.move(time.Millisecond)
	l := e.leaseJob()
	e.finishJob(l, meta.JobEnd{Next: 24 * time.Hour})
	if j := e.job(); j.DueAt != e.clock.now().Add(24*time.Hour) {
		e.Errorf("a run that began early counts as one asked for: %+v", j)
	}
	e.clock.move(every)
	e.finishJob(e.leaseJob(), meta.JobEnd{Failure: "broken", Next: 24 * time.Hour})
	e.clock.move(every)
	e.noJob()
}

func jobTexts(e *env) {
	for _, name := range []string{"", strings.Repeat("x", 65)} {
		if _, err := e.db.LeaseJob(e.Context(), name, every, jobTTL); err == nil {
			e.Errorf("job %q is leased", name)
		}
		if _, err := e.db.RequestJob(e.Context(), name); err == nil {
			e.Errorf("job %q is asked for", name)
		}
	}
	l := e.leaseJob()
	long := strings.Repeat("é", 8<<10)
	e.ok(e.db.RenewJob(e.Context(), "gc", l.Version, jobTTL, long))
	if err := e.db.RenewJob(e.Context(), "gc", l.Version, jobTTL, long+"x"); err == nil {
		e.Error("too long a progress is kept")
	}
	if err := e.db.FinishJob(e.Context(), "gc", l.Version, meta.JobEnd{Result: long + "x"}); err == nil {
		e.Error("too long a result is kept")
	}
	e.finishJob(l, meta.JobEnd{Result: long, Failure: "x\x00\xff" + long})
	j := e.job()
	if want := "x\ufffd\ufffd" + strings.Repeat("é", 100); !strings.HasPrefix(j.Failure, want) || len(j.Failure) > 2100 || !strings.HasSuffix(j.Failure, "é…") || j.Result != long {
		e.Errorf("kept are %d bytes of a result and the failure %.300q", len(j.Result), j.Failure)
	}
}
