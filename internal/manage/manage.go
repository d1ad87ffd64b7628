// Package manage holds what may be changed about who may do what. Every verb
// names its caller, decides by itself whether that caller may, and leaves a
// line in the audit trail: a front that forgets a check cannot be written.
package manage

import (
	"context"
	"errors"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/meta"
)

// Options of New. All but Now and Newcomers are required.
type Options struct {
	Store     Store
	Directory *directory.Directory // over the same database
	Passwords Passwords
	// ValidateRule says what is wrong with issuer, audience and claims of a
	// trust rule.
	ValidateRule func(access.TrustRule) error
	// Proxies runs the pull-through caches.
	Proxies Proxies
	// Refused is told of what was not allowed.
	Refused func(context.Context, audit.Event)
	// Newcomers is what projects follow that do not say it themselves; "" is
	// closed.
	Newcomers access.Newcomers
	// Restorable is how long a deleted project can be had back.
	Restorable time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Passwords hashes and checks passwords, slowly on purpose; an
// *auth.Authenticator does. Its errors are an *auth.ThrottledError, one that
// wraps auth.ErrPassword, or the server's fault.
type Passwords interface {
	Hash(ctx context.Context, password string) (string, error)
	Verify(ctx context.Context, user, password string) (bool, error)
}

// Manager does what callers ask for, where they may. It is safe for concurrent
// use. Its methods fail with an *Error, or with one that is the server's fault.
type Manager struct{ o Options }

// New returns a Manager.
func New(o Options) *Manager {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Newcomers == "" {
		o.Newcomers = access.Closed
	}
	return &Manager{o}
}

// Caller is on whose behalf a verb runs.
type Caller struct {
	auth.Identity
	Request string // its id, for the trail
	Agent   string // user agent
	// Once makes a create answer as it did before when it is asked for again;
	// nil: the client did not ask for that.
	Once Once
}

// Once keeps the answers of creates for those who send them again.
type Once interface {
	// Seal encrypts an answer such that only the sender of the request can have
	// it read.
	Seal(answer []byte) (*meta.Once, error)
	// Open decrypts what Seal made.
	Open(sealed []byte) (answer []byte, err error)
}

// now is the time as the database keeps it.
func (m *Manager) now() time.Time { return m.o.Now().UTC().Truncate(time.Millisecond) }

// event begins the caller's line in the trail of something that succeeds.
func (c *Caller) event(action string) audit.Event {
	e := audit.Event{
		Request: c.Request, Identity: c.String(), Key: c.KeyID, Agent: c.Agent,
		Action: action, Status: 200,
	}
	if c.Address.IsValid() {
		e.Address = c.Address.String()
	}
	return e
}

// create runs a step that makes what result says. Where the same request did so
// before, its result of then is returned.
func create[T any](c *Caller, e audit.Event, result T, step func(meta.Change) error) (T, error) {
	e.Status = 201
	change := meta.Change{Event: e}
	if c.Once != nil {
		answer, err := encode(result)
		if err != nil {
			return result, err
		}
		if change.Once, err = c.Once.Seal(answer); err != nil {
			return result, err
		}
	}
	err := step(change)
	var repeated *meta.RepeatedError
	if c.Once == nil || !errors.As(err, &repeated) {
		return result, asked(err)
	}
	answer, err := c.Once.Open(repeated.Answer)
	if err != nil {
		return result, err
	}
	return decode[T](answer)
}
