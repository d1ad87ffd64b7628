package metatest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/berth-registry/berth/internal/meta"
)

// day is how long the cases keep what nothing holds.
const day = 24 * time.Hour

// wantCollected collects what is older than a day.
func (e *env) wantCollected(wantRemoved, wantSeen int) {
	e.Helper()
	removed, seen, err := e.db.CollectLinks(e.Context(), e.clock.now().Add(-day), 100)
	if e.ok(err); removed != wantRemoved || seen != wantSeen {
		e.Errorf("removed %d of %d links, want %d of %d", removed, seen, wantRemoved, wantSeen)
	}
}

var collectCases = []testCase{
	{"collect/unreferenced", func(e *env) {
		d, key := e.push(repo, "a")
		e.clock.move(day - time.Millisecond)
		e.wantCollected(0, 0)
		e.hasBlob(repo, d)
		e.clock.move(time.Millisecond)
		e.wantCollected(1, 1)
		e.noBlob(repo, d)
		e.wantDead(key)
		e.wantCollected(0, 0)
	}},
	{"collect/held stays", func(e *env) {
		d, _ := e.push(repo, "a")
		m := e.put(image(repo, "m", d))
		e.clock.move(10 * day)
		e.wantCollected(0, 1)
		e.clock.move(10 * day)
		e.wantCollected(0, 0)
		e.hasBlob(repo, d)
		e.ok(e.db.DeleteManifest(e.Context(), repo, m))
		e.wantCollected(0, 0)
		e.hasBlob(repo, d)
		e.clock.move(day)
		e.wantCollected(1, 1)
		e.noBlob(repo, d)
	}},
	{"collect/held by another manifest", func(e *env) {
		d, _ := e.push(repo, "a")
		m := e.put(image(repo, "m", d))
		e.put(image(repo, "n", d))
		e.ok(e.db.DeleteManifest(e.Context(), repo, m))
		e.clock.move(day)
		e.wantCollected(0, 1)
		e.hasBlob(repo, d)
	}},
	{"collect/seen recently is put off", func(e *env) {
		d, key := e.push(repo, "a")
		for range 3 {
			e.clock.move(day - time.Hour)
			e.ok(e.db.TouchBlob(e.Context(), repo, d))
			e.clock.move(2 * time.Hour)
			e.wantCollected(0, 1)
			e.wantCollected(0, 0)
			e.hasBlob(repo, d)
		}
		e.clock.move(day)
		e.wantCollected(1, 1)
		e.wantDead(key)
	}},
	{"collect/mounted or pushed again is put off", func(e *env) {
		d, _ := e.push(repo, "a")
		e.push(other, "b")
		e.clock.move(day - time.Hour)
		_, err := e.db.Mount(e.Context(), repo, repo, d)
		e.ok(err)
		e.push(other, "b")
		e.clock.move(2 * time.Hour)
		e.wantCollected(0, 2)
		e.hasBlob(repo, d)
		e.hasBlob(other, digest("b"))
	}},
	{"collect/the last link ends the blob", func(e *env) {
		d, key := e.push(repo, "a")
		_, err := e.db.Mount(e.Context(), other, repo, d)
		e.ok(err)
		e.put(image(other, "m", d))
		e.clock.move(day)
		e.wantCollected(1, 2)
		e.noBlob(repo, d)
		e.hasBlob(other, d)
		e.wantDead()
		e.ok(e.db.DeleteManifest(e.Context(), other, digest("m")))
		e.clock.move(day)
		e.wantCollected(1, 1)
		e.wantDead(key)
	}},
	{"collect/what was deleted meanwhile", func(e *env) {
		d, _ := e.push(repo, "a")
		e.ok(e.db.DeleteBlob(e.Context(), repo, d))
		e.clock.move(day)
		e.wantCollected(0, 0)
	}},
	{"collect/a pending reference holds when it settles", func(e *env) {
		e.put(sparse(image(repo, "m", digest("a"))))
		d, _ := e.push(repo, "a")
		e.clock.move(day)
		e.wantCollected(0, 1)
		e.hasBlob(repo, d)
	}},
	{"collect/in batches", func(e *env) {
		for i := range 5 {
			e.push(repo, fmt.Sprint(i))
		}
		e.clock.move(day)
		for _, want := range []int{2, 2, 1, 0} {
			removed, seen, err := e.db.CollectLinks(e.Context(), e.clock.now(), 2)
			if e.ok(err); removed != want || seen != want {
				e.Errorf("removed %d of %d links, want %d", removed, seen, want)
			}
		}
		if n := len(e.dead()); n != 5 {
			e.Errorf("%d dead objects, want 5", n)
		}
	}},
}

var deadCases = []testCase{
	{"dead/in the order of their death", func(e *env) {
		var want []string
		for i := range 4 {
			d, key := e.push(repo, fmt.Sprint(i))
			e.ok(e.db.DeleteBlob(e.Context(), repo, d))
			want = append(want, key)
			e.clock.move(time.Second)
		}
		list, err := e.db.DeadObjects(e.Context(), e.clock.now(), 3)
		if e.ok(err); !slices.Equal(keysOf(list), want[:3]) {
			e.Errorf("dead are %v, want %v", keysOf(list), want[:3])
		}
		for _, o := range list {
			if o.Unsealed {
				e.Errorf("%+v was sealed", o)
			}
		}
		e.ok(e.db.ForgetDead(e.Context(), want[0], "absent"))
		e.wantDead(want[1:]...)
		list, err = e.db.DeadObjects(e.Context(), e.clock.now().Add(-3*time.Second), 1000)
		if e.ok(err); !slices.Equal(keysOf(list), want[1:2]) {
			e.Errorf("dead until then are %v, want %v", keysOf(list), want[1:2])
		}
		e.ok(e.db.DeferDead(e.Context(), time.Hour, want[1], "absent"))
		e.wantDead(want[2:]...)
		e.clock.move(time.Hour)
		e.wantDead(append(slices.Clone(want[2:]), want[1])...)
	}},
	{"dead/nothing", func(e *env) {
		e.wantDead()
		e.ok(e.db.ForgetDead(e.Context()))
		e.ok(e.db.DeferDead(e.Context(), time.Hour))
	}},
	{"dead/a cancelled context", func(e *env) {
		ctx, cancel := context.WithCancel(e.Context())
		cancel()
		d, _ := e.push(repo, "a")
		e.wantErr("write with a cancelled context", e.db.DeleteBlob(ctx, repo, d), context.Canceled)
		e.hasBlob(repo, d)
	}},
}

func keysOf(list []meta.DeadObject) []string {
	var keys []string
	for _, o := range list {
		keys = append(keys, o.Key)
	}
	return keys
}
