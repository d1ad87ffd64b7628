package upstream

import (
	"cmp"
	"slices"
	"time"
)

// Status is how an upstream does, for those who look after it.
type Status struct {
	Endpoints []EndpointStatus
	Hosts     []HostStatus
	InFlight  int // requests under way, bodies that are being read included
	Queued    int // requests that wait
	Stretch   int
}

// EndpointStatus is how an endpoint does.
type EndpointStatus struct {
	Address     string
	PausedUntil time.Time // the zero Time: it is not
	Budget      Budget    // Seen is the zero Time where nothing is known
}

// HostStatus is how a host does that was asked lately.
type HostStatus struct {
	Host     string
	Role     Role
	State    State
	Failures int       // in a row
	Until    time.Time // it is not asked before, if it is Open
}

// State is that of a breaker.
type State string

// The states: asked, not asked, asked once to see.
const (
	Closed   State = "closed"
	Open     State = "open"
	HalfOpen State = "half-open"
)

// Status asks nobody.
func (u *Registry) Status() Status {
	now := u.o.Now()
	s := Status{Hosts: u.breakers.status(now), InFlight: u.gate.count(), Queued: int(u.gate.queue.waiting.Load()), Stretch: u.Stretch()}
	for _, e := range u.endpoints {
		s.Endpoints = append(s.Endpoints, EndpointStatus{Address: e.address.String(), PausedUntil: e.pause.end(now), Budget: e.budget.get(now)})
	}
	return s
}

func (s *breakers) status(now time.Time) []HostStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []HostStatus
	for key, b := range s.byHost {
		all = append(all, b.status(key, now))
	}
	slices.SortFunc(all, func(a, b HostStatus) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Role, b.Role))
	})
	return all
}

func (b *breaker) status(key hostRole, now time.Time) HostStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := HostStatus{Host: key.host, Role: key.role, State: Closed, Failures: b.failures}
	switch {
	case b.until.IsZero():
	case b.until.After(now):
		h.State, h.Until = Open, b.until
	default:
		h.State = HalfOpen
	}
	return h
}
