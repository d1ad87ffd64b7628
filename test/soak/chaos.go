package soak

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// chaos kills and restarts parts until stop, and starts all at the end.
type chaos struct {
	system  System
	rng     *rand.Rand
	pause   time.Duration // between two blows, on average
	story   journal
	stats   *stats
	crashes *crashes
	log     func(format string, args ...any)
}

func (k *chaos) run(stop <-chan struct{}) error {
	var deck []Blow
	for {
		if !sleep(stop, scale(k.pause, 0.5+k.rng.Float64())) {
			return nil
		}
		if len(deck) == 0 {
			deck = k.system.Deck()
			k.rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		blow := deck[0]
		deck = deck[1:]
		if err := k.strike(stop, blow); err != nil {
			return err
		}
	}
}

// strike takes parts down and brings them up again, in the order in which they
// are needed.
func (k *chaos) strike(stop <-chan struct{}, blow Blow) error {
	began := time.Now()
	for _, part := range blow.Parts {
		do := k.system.Stop
		if blow.Kill {
			do = k.system.Kill
		}
		if err := do(part); err != nil {
			return fmt.Errorf("chaos: %v: %w", blow, err)
		}
	}
	down := time.Now()
	if blow.Kill && slices.Contains(blow.Parts, "postgres") {
		k.crashes.add(began, down)
	}
	sleep(stop, time.Duration(k.rng.Int64N(int64(2*time.Second))))
	for _, part := range blow.Parts {
		if err := k.start(part); err != nil {
			return fmt.Errorf("chaos: start %s after %v: %w", part, blow, err)
		}
		verb := "stopped "
		if blow.Kill {
			verb = "killed "
		}
		k.stats.count(verb+part, 1)
	}
	k.story.add(began, ">>> %v; down after %v, up again after %v", blow,
		down.Sub(began).Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	return nil
}

// start tries twice: a part that was killed may still be on its way out.
func (k *chaos) start(part string) error {
	err := k.system.Start(part)
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(err.Error())
	k.log("chaos: %s did not start at once: %s", part, text[strings.LastIndex(text, "\n")+1:])
	k.stats.count("starts that were repeated", 1)
	return k.system.Start(part)
}

// sleep is false when stop came first.
func sleep(stop <-chan struct{}, d time.Duration) bool {
	select {
	case <-stop:
		return false
	case <-time.After(d):
		return true
	}
}

// crashes are when the database was killed. What it may answer before it is
// durable, marks that somebody asked and sessions without a byte, it may forget then.
type crashes struct {
	mu   sync.Mutex
	list [][2]time.Time // from, to
}

// lag is how long the database takes at most to make durable what nobody waits for.
const lag = 2 * time.Second

func (c *crashes) add(from, to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, [2]time.Time{from, to})
}

// forgot says that what was answered between two times may be forgotten.
func (c *crashes) forgot(from, to time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.list, func(crash [2]time.Time) bool {
		return from.Before(crash[1]) && crash[0].Before(to.Add(lag))
	})
}
