package metatest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
)

// heard is what the database told its observer.
type heard struct {
	mu      sync.Mutex
	ops     []meta.Op
	asked   []any // what was under key in their contexts
	commits int
}

type key struct{}

func (h *heard) observer() meta.Observer {
	return meta.Observer{
		Done: func(ctx context.Context, op meta.Op) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.ops, h.asked = append(h.ops, op), append(h.asked, ctx.Value(key{}))
		},
		Committed: func(time.Duration) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.commits++
		},
	}
}

// since lists, as kind and outcome, what was heard while fn ran.
func (h *heard) since(e *env, fn func(ctx context.Context)) (ops []string, commits int) {
	e.Helper()
	h.mu.Lock()
	from, before := len(h.ops), h.commits
	h.mu.Unlock()
	fn(context.WithValue(e.Context(), key{}, "mine"))
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, op := range h.ops[from:] {
		if op.Start.IsZero() || op.Took < 0 || h.asked[from+i] != "mine" {
			e.Errorf("told of %+v, with the context of %v", op, h.asked[from+i])
		}
		if !slices.Contains(meta.Kinds(), op.Kind) || !slices.Contains(meta.Outcomes(), op.Outcome) {
			e.Errorf("told of %+v, which is of no kind", op)
		}
		ops = append(ops, op.Kind+" "+op.Outcome)
	}
	return ops, h.commits - before
}

func (e *env) wantHeard(commits int, fn func(ctx context.Context), want ...string) {
	e.Helper()
	if got, n := e.heard.since(e, fn); !slices.Equal(got, want) || n != commits {
		e.Errorf("heard of %q and %d commits, want %q and %d", got, n, want, commits)
	}
}

var observeCases = []testCase{
	{"observe/read", func(e *env) {
		e.wantHeard(0, func(ctx context.Context) { e.ok(e.db.Ping(ctx)) }, "read done")
	}},
	{"observe/write", func(e *env) {
		e.wantHeard(1, func(ctx context.Context) { e.ok(e.db.PutManifest(ctx, image(repo, "m"))) }, "write done")
	}},
	{"observe/hint is not made durable", func(e *env) {
		e.wantHeard(0, func(ctx context.Context) {
			e.ok(e.db.CreateUpload(ctx, meta.Upload{ID: uuid.NewString(), Repository: repo, Algorithm: oci.SHA256, Hash: []byte{}, State: []byte{}}))
		}, "hint done")
	}},
	{"observe/refused", func(e *env) {
		e.wantHeard(0, func(ctx context.Context) {
			var missing *meta.MissingError
			if err := e.db.PutManifest(ctx, image(repo, "m", digest("a"))); !errors.As(err, &missing) {
				e.Errorf("a manifest without its blob: %v", err)
			}
		}, "write refused", "read done") // which looks whether it raised the generation
	}},
	{"observe/canceled", func(e *env) {
		e.wantHeard(0, func(ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			e.wantErr("put for nobody", e.db.PutManifest(ctx, image(repo, "m")), context.Canceled)
		}, "write canceled")
	}},
	{"observe/pool", func(e *env) {
		pools := e.db.Pool()
		open := 0
		for _, p := range pools {
			if p.Name == "" || p.InUse+p.Idle != p.OpenConnections {
				e.Errorf("pool %+v", p)
			}
			open += p.OpenConnections
		}
		if open == 0 {
			e.Errorf("no connection is open in %+v", pools)
		}
	}},
}

func (e *env) wantBacklog(want meta.Backlog) {
	e.Helper()
	got, err := e.db.Backlog(e.Context())
	if e.ok(err); !got.Oldest.Equal(want.Oldest) {
		e.Errorf("the oldest is due since %v, want %v", got.Oldest, want.Oldest)
	}
	got.Oldest, want.Oldest = time.Time{}, time.Time{}
	if got != want {
		e.Errorf("backlog %+v, want %+v", got, want)
	}
}

var backlogCases = []testCase{
	{"backlog", func(e *env) {
		e.wantBacklog(meta.Backlog{})
		e.lease(repo, 0)
		u := e.lease(repo, 0)
		e.wantBacklog(meta.Backlog{Uploads: 2})
		e.push(repo, "a")
		e.wantBacklog(meta.Backlog{Uploads: 2, Links: 1}) // a blob is due for a look at once
		e.ok(e.db.CancelUpload(e.Context(), u))
		died := e.clock.now()
		e.wantBacklog(meta.Backlog{Uploads: 1, Links: 1, Dead: 1, Oldest: died})
		e.ok(e.db.DeferDead(e.Context(), time.Hour, u.ID))
		e.wantBacklog(meta.Backlog{Uploads: 1, Links: 1, Dead: 1})
		e.clock.move(2 * time.Hour)
		e.wantBacklog(meta.Backlog{Uploads: 1, Links: 1, Dead: 1, Oldest: died.Add(time.Hour)})
		e.ok(e.db.ForgetDead(e.Context(), u.ID))
		e.wantBacklog(meta.Backlog{Uploads: 1, Links: 1})
	}},
}
