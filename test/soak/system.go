package soak

import (
	"context"
	"database/sql"
	"fmt"
)

// Target is an address at which clients reach the registry.
type Target struct{ Name, URL string }

// System is a running registry whose parts can be killed.
type System interface {
	// Targets are the addresses that requests are spread over.
	Targets() []Target
	// User and password of the clients; "" where nobody is asked.
	Credentials() (user, password string)
	// Start, Stop and Kill one part, and wait until it answers or has ended.
	Start(part string) error
	Stop(part string) error
	Kill(part string) error
	// Deck is what chaos draws from: each blow comes once before any comes again.
	Deck() []Blow
	// Parts in the order in which they need each other.
	Parts() []string
	// Inventory lists what is stored, in the database and beside it.
	Inventory(ctx context.Context) (*Inventory, error)
	// Check runs berth check and returns what it says.
	Check(ctx context.Context) (string, error)
	// Where its logs are.
	Logs() string
}

// Blow is what chaos does to some parts at once.
type Blow struct {
	Kill  bool // else they are stopped as an administrator does
	Parts []string
}

func (b Blow) String() string {
	verb := "stop"
	if b.Kill {
		verb = "kill"
	}
	return fmt.Sprint(verb, " ", b.Parts)
}

// Inventory is all that is stored.
type Inventory struct {
	Tags      map[[2]string]string // (repository, tag) to digest
	Manifests map[[2]string]bool   // (repository, digest)
	Links     map[[2]string]bool   // (repository, digest) of blobs
	Blobs     map[string]object    // digest to object
	Uploads   map[string]bool      // ids of sessions, which are keys too
	Dead      map[string]bool      // keys that wait to be freed
	Objects   map[string]int64     // size of each object by its key
	Pieces    map[string]string    // what belongs to unfinished objects, and the key of each
}

type object struct {
	key  string
	size int64
}

func newInventory() *Inventory {
	return &Inventory{
		Tags: map[[2]string]string{}, Manifests: map[[2]string]bool{}, Links: map[[2]string]bool{},
		Blobs: map[string]object{}, Uploads: map[string]bool{}, Dead: map[string]bool{},
		Objects: map[string]int64{}, Pieces: map[string]string{},
	}
}

// readRows reads all tables as of one moment.
func (v *Inventory) readRows(ctx context.Context, db *sql.DB, o *sql.TxOptions) error {
	tx, err := db.BeginTx(ctx, o)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, q := range []struct {
		query string
		take  func(cols []string, size int64)
	}{
		{`SELECT r.name, t.name, t.digest, 0 FROM tags t JOIN repositories r ON r.id = t.repository_id`,
			func(c []string, _ int64) { v.Tags[[2]string{c[0], c[1]}] = c[2] }},
		{`SELECT r.name, m.digest, '', 0 FROM manifests m JOIN repositories r ON r.id = m.repository_id`,
			func(c []string, _ int64) { v.Manifests[[2]string{c[0], c[1]}] = true }},
		{`SELECT r.name, l.digest, '', 0 FROM links l JOIN repositories r ON r.id = l.repository_id`,
			func(c []string, _ int64) { v.Links[[2]string{c[0], c[1]}] = true }},
		{`SELECT digest, key, '', size FROM blobs`,
			func(c []string, size int64) { v.Blobs[c[0]] = object{c[1], size} }},
		{`SELECT id, '', '', 0 FROM uploads`, func(c []string, _ int64) { v.Uploads[c[0]] = true }},
		{`SELECT key, '', '', 0 FROM dead_objects`, func(c []string, _ int64) { v.Dead[c[0]] = true }},
	} {
		if err := each(ctx, tx, q.query, q.take); err != nil {
			return fmt.Errorf("%s: %w", q.query, err)
		}
	}
	return nil
}

func each(ctx context.Context, tx *sql.Tx, query string, take func([]string, int64)) error {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var c [3]string
		var size int64
		if err := rows.Scan(&c[0], &c[1], &c[2], &size); err != nil {
			return err
		}
		take(c[:], size)
	}
	return rows.Err()
}
