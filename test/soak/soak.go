// Package soak puts a registry under random load while its parts are killed, and
// holds every answer against a model of what it promised. At the end the store
// must have what the model says must be there, byte for byte, and nothing more.
package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Options of Run.
type Options struct {
	Length  time.Duration
	Seed    uint64        // of what is chosen at random
	Clients int           // default 16
	Pause   time.Duration // between two blows, on average; default 3 s
	Graces  Graces        // what the system is set to
	Log     func(format string, args ...any)
	Out     io.Writer // for tables
}

// soak is one run.
type soak struct {
	system  System
	o       Options
	log     func(format string, args ...any)
	repos   []*repo
	clients []*client
	chaos   *chaos
	stats   *stats
}

// Run soaks a system. Its error is the first thing that went wrong, with its
// whole story.
func Run(ctx context.Context, system System, o Options) error {
	if o.Clients == 0 {
		o.Clients = 16
	}
	if o.Pause == 0 {
		o.Pause = 3 * time.Second
	}
	s := &soak{system: system, o: o, log: o.Log, stats: newStats()}
	s.populate()
	began := time.Now()
	err := s.load()
	if err == nil {
		s.log("%v of load are over, %d requests were done as asked", time.Since(began).Round(time.Second), s.stats.total())
		err = s.verify(ctx)
	}
	s.stats.print(o.Out)
	if err != nil {
		return s.tell(err)
	}
	return nil
}

// ownRepos is how many repositories each client has for itself.
const ownRepos = 3

// populate makes clients and their repositories. Projects are shared, and with
// them the rows that count what they use.
func (s *soak) populate() {
	crashed := &crashes{}
	var common []*repo
	for i := range 2 {
		common = append(common, newRepo(fmt.Sprintf("common/%d", i), true, s.o.Graces, crashed))
	}
	s.repos = append(s.repos, common...)
	user, password := s.system.Credentials()
	for n := range s.o.Clients {
		c := &client{
			number: n, rng: rand.New(rand.NewPCG(s.o.Seed, uint64(n))), http: newHTTP(),
			targets: s.system.Targets(), user: user, password: password, common: common, stats: s.stats,
			name: fmt.Sprintf("soak-%d-c%d", s.o.Seed, n),
		}
		for i := range ownRepos {
			c.own = append(c.own, newRepo(fmt.Sprintf("team%d/c%d-%d", n%5, n, i), false, s.o.Graces, crashed))
		}
		s.repos = append(s.repos, c.own...)
		s.clients = append(s.clients, c)
	}
	for _, c := range s.clients {
		c.all = s.repos
	}
	s.chaos = &chaos{
		system: s.system, rng: rand.New(rand.NewPCG(s.o.Seed, 1<<32)), pause: s.o.Pause, stats: s.stats, crashes: crashed, log: s.log,
	}
}

// load runs all clients beside the chaos for the given time, or until
// something is wrong.
func (s *soak) load() error {
	stop := make(chan struct{})
	var once sync.Once
	halt := func() { once.Do(func() { close(stop) }) }
	defer time.AfterFunc(s.o.Length, halt).Stop()
	var struck sync.WaitGroup
	var chaosErr error
	struck.Go(func() {
		if chaosErr = s.chaos.run(stop); chaosErr != nil {
			halt()
		}
	})
	err := s.each(func(c *client) error {
		err := c.run(stop)
		if err != nil {
			halt()
		}
		return err
	})
	struck.Wait()
	if err != nil {
		return err
	}
	return chaosErr
}

// each runs f for all clients at once and returns the first error in time.
func (s *soak) each(f func(*client) error) error {
	var first atomic.Pointer[error]
	var wg sync.WaitGroup
	for _, c := range s.clients {
		wg.Go(func() {
			if err := f(c); err != nil {
				first.CompareAndSwap(nil, &err)
			}
		})
	}
	wg.Wait()
	if err := first.Load(); err != nil {
		return *err
	}
	return nil
}

// tell adds to an error what happened in its repository, and to the parts.
func (s *soak) tell(err error) error {
	stories := []*journal{&s.chaos.story}
	var v *violation
	if errors.As(err, &v) && v.r != nil {
		stories = append(stories, &v.r.story)
	}
	return fmt.Errorf("%w\nseed %d; logs are in %s; what happened:\n%s", err, s.o.Seed, s.system.Logs(), tell(stories...))
}
