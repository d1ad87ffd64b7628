package recorder

import (
	"context"
	"fmt"
	"time"

	"github.com/berth-registry/berth/internal/audit"
)

// run writes batches until the recorder is closed and the queue empty. ctx ends
// when Close waits no longer.
func (r *Recorder) run(ctx context.Context) {
	defer close(r.done)
	room := make([]audit.Event, 0, r.o.Batch+1) // one more for a gap
	for {
		batch := r.gather(room)
		if len(batch) == 0 {
			return
		}
		if batch = r.thin(batch); len(batch) > 0 {
			r.write(ctx, batch)
		}
	}
}

// gather waits for an event and then, for a moment, for those that come along.
// It returns none when the recorder is closed and the queue empty.
func (r *Recorder) gather(batch []audit.Event) []audit.Event {
	select {
	case e := <-r.queue:
		batch = append(batch, e)
	case <-r.stop:
		return r.takeQueued(batch)
	}
	wait := time.NewTimer(r.o.Delay)
	defer wait.Stop()
	for len(batch) < r.o.Batch {
		select {
		case e := <-r.queue:
			batch = append(batch, e)
		case <-wait.C:
			return batch
		case <-r.stop:
			return r.takeQueued(batch)
		}
	}
	return batch
}

func (r *Recorder) takeQueued(batch []audit.Event) []audit.Event {
	for len(batch) < r.o.Batch {
		select {
		case e := <-r.queue:
			batch = append(batch, e)
		default:
			return batch
		}
	}
	return batch
}

// write writes a batch, and tries again for as long as it has to: meanwhile the
// queue fills, and what does not fit is counted.
func (r *Recorder) write(ctx context.Context, batch []audit.Event) {
	gap := r.unnoted.Load()
	if gap > 0 {
		batch = append(batch, gapEvent(gap))
	}
	var logged time.Time
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		err := r.store.AppendAudit(ctx, batch)
		if err == nil {
			r.unnoted.Add(-gap)
			return
		}
		if ctx.Err() != nil {
			break
		}
		if time.Since(logged) >= logEvery {
			logged = time.Now()
			r.o.Log.Error("the audit trail cannot be written, trying again", "error", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	if gap > 0 {
		batch = batch[:len(batch)-1]
	}
	r.given += int64(len(batch))
	r.drop(int64(len(batch)), "the registry ended before they could be written")
}

// gapEvent tells readers of the trail that it is not complete here.
func gapEvent(n int64) audit.Event {
	return audit.Event{
		Time: time.Now(), Action: "audit.gap", Status: statusUnavailable,
		Reason: fmt.Sprintf("events missing before this one: %d, there were more than could be written", n),
	}
}
