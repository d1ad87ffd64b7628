package meta

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Observer hears of what the database does. Its functions must be quick and safe
// for concurrent use; one that is nil is not called.
type Observer struct {
	// Done is told of each transaction, and of each read outside of one, when it
	// has ended. Of a read that is when its first row is there.
	Done func(ctx context.Context, op Op)
	// Retried is told when one failed and will run again; why is one of Retries.
	Retried func(why string)
	// Committed is told how long it took to make changes durable. One sync may
	// be that of many transactions.
	Committed func(took time.Duration)
}

// Op is a transaction, or a read outside of one, that has ended.
type Op struct {
	Kind    string // one of Kinds
	Outcome string // one of Outcomes
	Start   time.Time
	Took    time.Duration // waiting for a connection, or for other writes, included
}

// Kinds are those of all operations. A hint may be undone by a loss of power; of
// changes no two run at once.
func Kinds() []string { return []string{"read", durable.String(), relaxed.String(), alone.String()} }

// Outcomes are those of all operations. What is refused is the caller's doing: a
// quota, a name that is taken, a session that another leases.
func Outcomes() []string {
	return []string{"done", "refused", "unavailable", "full", "canceled", "failed"}
}

// Retries are the reasons why something runs again: rows that another
// transaction took first, a constraint that perhaps one has lifted, a connection
// that ended.
func Retries() []string { return []string{"race", "constraint", "connection"} }

// String names the kind for people and metrics.
func (k kind) String() string {
	return [...]string{durable: "write", relaxed: "hint", alone: "change"}[k]
}

// outcome is the one of Outcomes that an error, which went through classify,
// stands for.
func outcome(err error) string {
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrClosed):
		return "unavailable"
	case errors.Is(err, ErrFull):
		return "full"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "canceled"
	case refusal(err):
		return "refused"
	}
	return "failed"
}

// refusal reports whether an error is an answer rather than a fault.
func refusal(err error) bool {
	for _, known := range []error{ErrNotFound, ErrExists, ErrInUse, ErrLastAdmin, ErrNoRepository, ErrLeased} {
		if errors.Is(err, known) {
			return true
		}
	}
	var missing *MissingError
	var held *ReferencedError
	var quota *QuotaError
	return errors.As(err, &missing) || errors.As(err, &held) || errors.As(err, &quota)
}

// why is the one of Retries that an error is worth another attempt for.
func why(err error) string {
	switch worth(err) {
	case maxLost:
		return "connection"
	case maxRaces:
		return "race"
	}
	return "constraint"
}

func (o *Observer) retried(err error) {
	if o.Retried != nil {
		o.Retried(why(err))
	}
}

func (o *Observer) done(ctx context.Context, kind string, start time.Time, err error) {
	o.Done(ctx, Op{Kind: kind, Outcome: outcome(err), Start: start, Took: time.Since(start)})
}

// committing starts the clock of Committed.
func (o *Observer) committing() (done func(error)) {
	if o.Committed == nil {
		return func(error) {}
	}
	start := time.Now()
	return func(err error) {
		if err == nil {
			o.Committed(time.Since(start))
		}
	}
}

// Pool is a pool of connections as it is now.
type Pool struct {
	Name string // read and write of SQLite, postgres
	sql.DBStats
}

// Pool tells of the pools of this process.
func (db *DB) Pool() []Pool { return db.engine.pools() }

func (e *sqliteEngine) pools() []Pool {
	return []Pool{{"read", e.read.Stats()}, {"write", e.pool.Stats()}}
}

func (e *postgresEngine) pools() []Pool {
	p := Pool{"postgres", e.pool.Stats()}
	p.WaitCount, p.WaitDuration = e.slots.waits.Load(), time.Duration(e.slots.waited.Load())
	return []Pool{p}
}
