package blobtest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/blob"
)

// Faulty is a store that fails on demand, for tests of what stands on one. A
// literal with only Store set passes everything through. Its methods are safe
// for concurrent use; the fields are set before the first call.
type Faulty struct {
	blob.Store

	// AfterSeal runs when an object has been sealed. The error it returns is
	// that of Seal, although the object is sealed: a crash between Seal and
	// the commit of its caller.
	AfterSeal func(key string, s blob.State) error

	mu      sync.Mutex
	calls   map[string]int
	faults  map[call]error
	limited bool
	room    int64 // bytes that Append may still take if limited
}

// call is the n-th of a method, counted from one.
type call struct {
	method string
	n      int
}

var _ blob.Store = (*Faulty)(nil)

var methods = []string{"Open", "URL", "Create", "Append", "Seal", "Abort", "Delete", "List", "Check"}

// Fail makes the n-th call of a method from now return err, without reaching
// the store; 1 is the next one. A method that Store does not have panics.
func (f *Faulty) Fail(method string, n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.faults == nil {
		f.faults = map[call]error{}
	}
	f.faults[call{method, f.calls[known(method)] + n}] = err
}

// Calls tells how often a method was called, failed calls included.
func (f *Faulty) Calls(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[known(method)]
}

// Room makes the store full when Append has taken n more bytes, over all
// objects. Those that came before its end stay behind the state that Append
// returns, as on a real disk. Deleting frees nothing.
func (f *Faulty) Room(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limited, f.room = true, n
}

// Unlimited ends what Room began.
func (f *Faulty) Unlimited() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limited = false
}

func known(method string) string {
	if !slices.Contains(methods, method) {
		panic(fmt.Sprintf("blobtest: blob.Store has no method %q", method))
	}
	return method
}

// called counts a call and returns the error it was chosen to fail with.
func (f *Faulty) called(method string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[string]int{}
	}
	f.calls[method]++
	at := call{method, f.calls[method]}
	err := f.faults[at]
	delete(f.faults, at)
	return err
}

// take reserves up to n bytes of room.
func (f *Faulty) take(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.limited {
		return n
	}
	n = int(min(int64(n), f.room))
	f.room -= int64(n)
	return n
}

func (f *Faulty) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := f.called("Open"); err != nil {
		return nil, err
	}
	return f.Store.Open(ctx, key, off, n)
}

func (f *Faulty) URL(ctx context.Context, key string, ttl time.Duration) (string, error) {
	if err := f.called("URL"); err != nil {
		return "", err
	}
	return f.Store.URL(ctx, key, ttl)
}

func (f *Faulty) Create(ctx context.Context, key string) (blob.State, error) {
	if err := f.called("Create"); err != nil {
		return blob.State{}, err
	}
	return f.Store.Create(ctx, key)
}

func (f *Faulty) Append(ctx context.Context, key string, s blob.State, r io.Reader) (blob.State, error) {
	if err := f.called("Append"); err != nil {
		return s, err
	}
	body := &roomReader{r: r, take: f.take}
	next, err := f.Store.Append(ctx, key, s, body)
	if body.full {
		return s, blob.ErrFull
	}
	return next, err
}

func (f *Faulty) Seal(ctx context.Context, key string, s blob.State) error {
	if err := f.called("Seal"); err != nil {
		return err
	}
	err := f.Store.Seal(ctx, key, s)
	if err == nil && f.AfterSeal != nil {
		err = f.AfterSeal(key, s)
	}
	return err
}

func (f *Faulty) Abort(ctx context.Context, key string, s blob.State) error {
	if err := f.called("Abort"); err != nil {
		return err
	}
	return f.Store.Abort(ctx, key, s)
}

func (f *Faulty) Delete(ctx context.Context, keys ...string) error {
	if err := f.called("Delete"); err != nil {
		return err
	}
	return f.Store.Delete(ctx, keys...)
}

// List counts and fails when it is called, not when it is walked.
func (f *Faulty) List(ctx context.Context, after string) iter.Seq2[blob.Object, error] {
	if err := f.called("List"); err != nil {
		return func(yield func(blob.Object, error) bool) { yield(blob.Object{}, err) }
	}
	return f.Store.List(ctx, after)
}

func (f *Faulty) Check(ctx context.Context) error {
	if err := f.called("Check"); err != nil {
		return err
	}
	return f.Store.Check(ctx)
}

// roomReader passes on what there is room for and then fails.
type roomReader struct {
	r    io.Reader
	take func(int) int
	full bool
}

func (r *roomReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if fits := r.take(n); fits < n {
		r.full = true
		return fits, blob.ErrFull
	}
	return n, err
}
