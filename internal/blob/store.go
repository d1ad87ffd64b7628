// Package blob declares a store of bytes under opaque keys. A store knows no
// digests, repositories or sessions, and keeps no state of its own between
// calls: the progress of a write is a State that its caller makes durable.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// Errors of a Store, for errors.Is.
var (
	ErrNotFound    = errors.New("blob object not found")
	ErrUnsupported = errors.New("not supported by this blob store")
	ErrFull        = errors.New("blob store is full")
	// ErrSealed: the object was sealed before, and the store cannot tell from
	// which bytes.
	ErrSealed = errors.New("blob object is sealed already")
	// ErrUnavailable: the same call may succeed later.
	ErrUnavailable = errors.New("blob store cannot be reached, or is overloaded")
)

// State is the durable progress of writing one object.
type State struct {
	Size   int64  // bytes durably stored, from the first
	Opaque []byte // the store's own; nil at first
}

// Object is an entry of List.
type Object struct {
	Key      string
	Size     int64
	Modified time.Time
}

// Store keeps objects. Keys are made by the caller and pass CheckKey; a key is
// written once. An object is readable after Seal. Methods are safe for
// concurrent use, except that an object has one writer at a time, which the
// caller sees to.
type Store interface {
	// Open reads n bytes of a sealed object from off; the caller knows the
	// size and asks within it. The caller closes the reader. A reader that is
	// open outlives a Delete. Errors: ErrNotFound.
	Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)

	// URL is a temporary address of a sealed object. Errors: ErrUnsupported.
	URL(ctx context.Context, key string, ttl time.Duration) (string, error)

	// Create begins an object. It may defer all work to the first Append.
	Create(ctx context.Context, key string) (State, error)

	// Append writes r behind the first s.Size bytes; whatever an earlier,
	// failed Append left behind them is overwritten. It returns the state that
	// is durable, also with an error: if r fails, all bytes read from it so far
	// count; if writing fails, s is returned. Errors: those of r, ErrFull,
	// ErrNotFound if what s says is stored is lost.
	Append(ctx context.Context, key string, s State, r io.Reader) (State, error)

	// Seal makes the object of s.Size bytes readable and durable. Sealing again
	// with the same state is no error, for the caller may have crashed between;
	// but it may be ErrSealed where two writers went on from one state and the
	// store cannot tell whose bytes are sealed: the caller reads them, then.
	// Nothing replaces a sealed object.
	Seal(ctx context.Context, key string, s State) error

	// Abort frees an object that was not sealed. An absent one is no error.
	Abort(ctx context.Context, key string, s State) error

	// Delete frees objects. Absent ones are no error.
	Delete(ctx context.Context, keys ...string) error

	// List walks objects, sealed or not, in the order of their keys, starting
	// behind after. One that is not sealed may have nothing to list yet. It is for integrity checks; no request walks a store.
	List(ctx context.Context, after string) iter.Seq2[Object, error]

	// Check proves that the store takes writes: it writes, syncs, renames or
	// reads back, and deletes a small object.
	Check(ctx context.Context) error
}

// Prober is a Store that cannot Open what is not sealed, but tell whether the
// bytes that a State says are stored are still there. Errors: ErrNotFound, where
// some are lost.
type Prober interface {
	Probe(ctx context.Context, key string, s State) error
}

// Sweeper is a Store in which a crash may leave pieces of objects that were
// never sealed, and that their State alone would not find.
type Sweeper interface {
	Store
	// Sweep removes such pieces that are older than before, unless live says
	// that an object of that key is still being written. It never touches sealed
	// objects. It counts what it removed, also with an error.
	Sweep(ctx context.Context, before time.Time, live func(key string) (bool, error)) (n int, err error)
}

// MaxKey is the length limit of a key in bytes.
const MaxKey = 128

// CheckKey accepts keys of lower-case letters, digits and '-' that can be a
// file name or part of a URL anywhere. At least four bytes.
func CheckKey(key string) error {
	if len(key) < 4 || len(key) > MaxKey {
		return fmt.Errorf("blob key %q: 4 to %d bytes are allowed", key, MaxKey)
	}
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("blob key %q: only a-z, 0-9 and '-' are allowed", key)
		}
	}
	return nil
}
