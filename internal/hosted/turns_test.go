package hosted

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// TestCollectionTakesTurns: a queue that is long, or fails, keeps none waiting,
// and what one removes is found due in the next within the same run.
func TestCollectionTakesTurns(t *testing.T) {
	var order []string
	long, later := 10*turnBatches, 0
	take := func(name string, left *int) *queue {
		return &queue{batch: 1, step: func(context.Context, int) (int, Collected, error) {
			if *left == 0 {
				return 0, Collected{}, nil
			}
			*left--
			order = append(order, name)
			return 1, Collected{}, nil
		}}
	}
	first := take("long", &long)
	inner := first.step
	first.step = func(ctx context.Context, n int) (int, Collected, error) {
		rows, got, err := inner(ctx, n)
		later += rows // each makes one due in the last queue
		return rows, got, err
	}
	broken := &queue{batch: 1, step: func(context.Context, int) (int, Collected, error) {
		order = append(order, "broken")
		return 1, Collected{}, errors.New("broken")
	}}
	c := &collection{}
	if err := c.drain(t.Context(), []*queue{first, broken, take("later", &later)}); err == nil {
		t.Error("the failures of a queue are not told")
	}
	if long != 0 || later != 0 {
		t.Errorf("%d and %d are left", long, later)
	}
	if i := slices.Index(order, "later"); i < 0 || i > 3*turnBatches {
		t.Errorf("the last queue had its first turn after %d batches: %v", i, order)
	}
	if n := len(slices.DeleteFunc(order, func(s string) bool { return s != "broken" })); n != maxFailures {
		t.Errorf("the queue that fails was tried %d times, want %d", n, maxFailures)
	}
}
