package meta

import (
	"context"
	"errors"

	"github.com/berth-registry/berth/internal/audit"
)

// Change is what every management step brings along: its line in the audit
// trail, written in the step's own transaction.
type Change struct {
	Event audit.Event
	// Once makes the step happen once however often it is asked for; nil: no.
	Once *Once
}

// Once recognises a request that is sent again.
type Once struct {
	ID      string // of the caller and the client's idempotency key
	Request string // a hash of what is asked for: another under one ID is refused
	Answer  []byte // kept for the next time; encrypted by the caller
}

// RepeatedError says that the step was done before, with this answer.
type RepeatedError struct{ Answer []byte }

func (e *RepeatedError) Error() string { return "done before" }

// ErrKeyReused: an idempotency key that came with another request before.
var ErrKeyReused = errors.New("the idempotency key was used for another request")

// manage runs a management step. When it returns nil every decision of this
// process follows the change.
func (db *DB) manage(ctx context.Context, c Change, fn func(*tx) error) error {
	return db.change(ctx, func(t *tx) error {
		if err := db.once(t, c.Once); err != nil {
			return err
		}
		if err := fn(t); err != nil {
			return err
		}
		if err := t.raise(); err != nil {
			return err
		}
		return db.insertAudit(t, c.Event)
	})
}

func (db *DB) once(t *tx, o *Once) error {
	if o == nil {
		return nil
	}
	var request string
	var answer []byte
	err := t.queryRow(`SELECT request, answer FROM idempotency WHERE id = $1`, o.ID).Scan(&request, &answer)
	switch {
	case err == nil && request != o.Request:
		return ErrKeyReused
	case err == nil:
		return &RepeatedError{answer}
	case !errors.Is(err, ErrNotFound):
		return err
	}
	_, err = t.exec(`INSERT INTO idempotency (id, request, answer, created_at) VALUES ($1, $2, $3, $4)`,
		o.ID, o.Request, o.Answer, db.millis())
	return err
}
