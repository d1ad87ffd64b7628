// Package audit declares what is recorded of who did what, and how a
// transaction deep below learns for whom it runs.
package audit

import (
	"context"
	"time"
)

// Event is one line of the audit trail. Fields without a meaning for an action
// are zero. No field ever holds a secret.
type Event struct {
	ID         string    `json:"id"` // sorts by time
	Time       time.Time `json:"time"`
	Request    string    `json:"request,omitempty"`  // its id
	Identity   string    `json:"identity,omitempty"` // kind:name, e.g. user:alice; "" anonymous
	Key        string    `json:"key,omitempty"`      // id of the key that was used
	Address    string    `json:"address,omitempty"`
	Agent      string    `json:"agent,omitempty"`
	Action     string    `json:"action"`            // manifest.write, login, project.create, …
	Project    string    `json:"project,omitempty"` // "": that of the repository
	Repository string    `json:"repository,omitempty"`
	Reference  string    `json:"reference,omitempty"` // tag, or the name of what was managed
	Digest     string    `json:"digest,omitempty"`
	Bytes      int64     `json:"bytes,omitempty"`
	Status     int       `json:"status"`           // as of HTTP
	Reason     string    `json:"reason,omitempty"` // of a refusal
}

// Caller is for whom an operation runs, as the trail shows it. It travels in
// the context because every layer passes it on and none but a transaction's
// record reads it; nothing is decided by it, except that an upload session
// belongs to the Owner who began it.
type Caller struct {
	Owner    string // kind:id; "" anonymous
	Identity string // kind:name
	Key      string
	Request  string
	Address  string
	Agent    string
}

type callerKey struct{}

// WithCaller says for whom operations under ctx run.
func WithCaller(ctx context.Context, c *Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf is the caller under ctx, nil where nobody was named: the registry
// itself is at work, and leaves no trail.
func CallerOf(ctx context.Context) *Caller {
	c, _ := ctx.Value(callerKey{}).(*Caller)
	return c
}

// Event begins an event of this caller.
func (c *Caller) Event(action string) Event {
	return Event{Request: c.Request, Identity: c.Identity, Key: c.Key, Address: c.Address, Agent: c.Agent, Action: action}
}

// Reasoner is an error that is a refusal and says why, for the trail alone:
// the client may be told less, or something else.
type Reasoner interface {
	error
	AuditReason() string
}
