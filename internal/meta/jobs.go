package meta

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxJobs    = 100      // that Jobs lists
	maxJobName = 64       // bytes
	maxJobText = 16 << 10 // bytes of a result and of progress
	maxFailure = 2 << 10  // bytes of a failure that are kept
)

// Job is the row of work that is done again and again, by one process of all at
// a time.
type Job struct {
	Name    string
	Version int64 // of the latest run
	// LeaseUntil is when the run under way is given up, unless its holder goes on
	// renewing; the zero Time: none is under way.
	LeaseUntil time.Time
	DueAt      time.Time
	StartedAt  time.Time // of the latest run
	Progress   string    // of the run under way, as its holder noted it
	// Finished is the version of the last run that came to an end; 0: none did.
	// The fields below are its own.
	Finished   int64
	FinishedAt time.Time
	Failures   int    // in a row; 0 where it went well
	Failure    string // why, "" where it went well
	Result     string // JSON, may be ""
}

// JobLease makes one process a job's only one for a while.
type JobLease struct {
	Version  int64
	Failures int // in a row, of the runs before
}

// JobEnd is how a run ended.
type JobEnd struct {
	Result  string        // JSON, may be ""
	Failure string        // "" where it went well; too long a one is cut
	Next    time.Duration // until the next run
}

// Jobs lists all jobs that have been run or asked for.
func (db *DB) Jobs(ctx context.Context) ([]Job, error) {
	rows, err := db.query(ctx, `SELECT name, version, lease_until, due_at, started_at, progress,
		finished, finished_at, failures, failure, result FROM jobs WHERE name > '' ORDER BY name LIMIT $1`, maxJobs)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (j Job, err error) {
		var lease, due, started, finished int64
		err = r.Scan(&j.Name, &j.Version, &lease, &due, &started, &j.Progress,
			&j.Finished, &finished, &j.Failures, &j.Failure, &j.Result)
		j.LeaseUntil, j.DueAt, j.StartedAt, j.FinishedAt = unlessZero(lease), unlessZero(due), unlessZero(started), unlessZero(finished)
		return j, err
	})
}

func unlessZero(millis int64) time.Time {
	if millis == 0 {
		return time.Time{}
	}
	return time.UnixMilli(millis)
}

// LeaseJob begins a run of a job that is due: at the time its row says, or
// every after the end of its last run where that went well, whichever is first.
// A job that has never been heard of is due. Errors: ErrJobLeased where it is not
// due, or under way elsewhere.
func (db *DB) LeaseJob(ctx context.Context, name string, every, ttl time.Duration) (l JobLease, err error) {
	if err := checkJob(name); err != nil {
		return JobLease{}, err
	}
	// Durable, so that no version is ever given twice.
	err = db.update(ctx, func(t *tx) error {
		now := db.millis()
		return t.queryRow(`INSERT INTO jobs (name, version, lease_owner, lease_until, due_at, started_at, progress,
			finished, finished_at, failures, failure, result) VALUES ($1, 1, $2, $3, $4, $4, '', 0, 0, 0, '', '')
			ON CONFLICT (name) DO UPDATE SET version = jobs.version + 1, lease_owner = excluded.lease_owner,
			lease_until = excluded.lease_until, due_at = excluded.due_at, started_at = excluded.started_at, progress = ''
			WHERE jobs.lease_until <= $4 AND (jobs.due_at <= $4 OR jobs.failures = 0 AND jobs.finished_at <= $5 AND jobs.finished_at > 0)
			RETURNING version, failures`,
			name, db.owner, now+ttl.Milliseconds(), now, now-every.Milliseconds()).Scan(&l.Version, &l.Failures)
	})
	if errors.Is(err, ErrNotFound) {
		err = ErrJobLeased
	}
	return l, err
}

// RenewJob prolongs a run's lease and notes how far it came, as JSON. Errors:
// ErrJobLeased when the lease was lost.
func (db *DB) RenewJob(ctx context.Context, name string, version int64, ttl time.Duration, progress string) error {
	if err := checkJobText("progress", progress); err != nil {
		return err
	}
	return db.update(ctx, func(t *tx) error {
		return ran(t.exec(`UPDATE jobs SET lease_until = $3, progress = $4
			WHERE name = $1 AND version = $2 AND lease_until > 0`, name, version, db.millis()+ttl.Milliseconds(), progress))
	})
}

// FinishJob ends a run and says when the next one is due: at once, where it was
// asked for during this one. Errors: ErrJobLeased when the lease was lost.
func (db *DB) FinishJob(ctx context.Context, name string, version int64, end JobEnd) error {
	if err := checkJobText("result", end.Result); err != nil {
		return err
	}
	return db.update(ctx, func(t *tx) error {
		now := db.millis()
		return ran(t.exec(`UPDATE jobs SET lease_owner = '', lease_until = 0, progress = '', finished = version, finished_at = $3,
			due_at = CASE WHEN due_at > started_at THEN due_at ELSE $4 END, result = $5, failure = $6,
			failures = CASE WHEN $6 = '' THEN 0 ELSE failures + 1 END
			WHERE name = $1 AND version = $2 AND lease_until > 0`,
			name, version, now, now+end.Next.Milliseconds(), end.Result, kept(end.Failure)))
	})
}

// ReleaseJob gives up a run that did not come to an end; the job is due at once.
// Errors: ErrJobLeased when the lease was lost.
func (db *DB) ReleaseJob(ctx context.Context, name string, version int64) error {
	return db.update(ctx, func(t *tx) error {
		return ran(t.exec(`UPDATE jobs SET lease_owner = '', lease_until = 0, progress = ''
			WHERE name = $1 AND version = $2 AND lease_until > 0`, name, version))
	})
}

// RequestJob makes a job due now, and once more where a run is under way. The
// next run whose version is above the one returned does what was asked for.
func (db *DB) RequestJob(ctx context.Context, name string) (version int64, err error) {
	if err := checkJob(name); err != nil {
		return 0, err
	}
	err = db.update(ctx, func(t *tx) error {
		return t.queryRow(`INSERT INTO jobs (name, version, lease_owner, lease_until, due_at, started_at, progress,
			finished, finished_at, failures, failure, result) VALUES ($1, 0, '', 0, $2, 0, '', 0, 0, 0, '', '')
			ON CONFLICT (name) DO UPDATE SET due_at = CASE WHEN jobs.lease_until = 0 OR jobs.started_at < $2 THEN $2 ELSE jobs.started_at + 1 END
			RETURNING version`, name, db.millis()).Scan(&version)
	})
	return version, err
}

func checkJob(name string) error {
	if name == "" || len(name) > maxJobName {
		return fmt.Errorf("job %.100q: 1 to %d bytes are allowed", name, maxJobName)
	}
	return nil
}

func checkJobText(what, text string) error {
	if len(text) > maxJobText {
		return fmt.Errorf("a job's %s has %d bytes, at most %d are kept", what, len(text), maxJobText)
	}
	return nil
}

// kept is what of a failure's text a row can hold.
func kept(failure string) string {
	if len(failure) > maxFailure {
		cut := maxFailure
		for cut > 0 && !utf8.RuneStart(failure[cut]) {
			cut--
		}
		failure = failure[:cut] + "…"
	}
	return strings.ReplaceAll(strings.ToValidUTF8(failure, "\ufffd"), "\x00", "\ufffd")
}

// ran turns "no run under way has that version" into the loss of the lease.
func ran(n int64, err error) error {
	if err == nil && n == 0 {
		return ErrJobLeased
	}
	return err
}
