package policy

import (
	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/directory"
	"github.com/berth-registry/berth/internal/registry"
)

// Refusal says why something was refused. It is for the log and the audit
// trail; clients must not be told.
type Refusal struct {
	Reason string
	Err    error // of package auth, where other credentials would help; or nil
}

var _ audit.Reasoner = (*Refusal)(nil)

func (r *Refusal) Error() string { return r.Reason }
func (r *Refusal) Unwrap() error { return r.Err }

// AuditReason implements audit.Reasoner.
func (r *Refusal) AuditReason() string { return r.Reason }

// refused is the answer to who lacks a right. The anonymous are asked to log
// in, whatever it is they lack; of what others may not read they shall not
// learn that it exists.
func refused(id *auth.Identity, op *registry.Op, right access.Right, v verdict) error {
	e := &registry.Error{Code: registry.Denied, Repo: op.Repo, Err: &Refusal{Reason: v.reason}}
	switch {
	case id.Kind == access.Anonymous:
		e.Code, e.Err = registry.Unauthorized, &Refusal{v.reason, auth.ErrCredentials}
	case right == access.Pull:
		e.Code = registry.NameUnknown
	case v.deleted:
		e.Detail = "the project is deleted; restore it, or wait until it is purged"
	}
	return e
}

// insufficientScope is the answer to a token that was not asked for this.
func insufficientScope(op *registry.Op) error {
	return &registry.Error{Code: registry.Unauthorized, Repo: op.Repo,
		Err: &Refusal{"the token was not asked for " + op.Action.String(), auth.ErrInsufficientScope}}
}

// lapsedCredential is the answer to a credential that does not count any more.
func lapsedCredential(id *auth.Identity, lapsed *directory.LapsedError) error {
	why := auth.ErrCredentials
	if id.Scopes != nil {
		why = auth.ErrInvalidToken
	}
	return &registry.Error{Code: registry.Unauthorized, Err: &Refusal{lapsed.Reason, why}}
}

func readOnly(op *registry.Op) error {
	return &registry.Error{Code: registry.Unsupported, Repo: op.Repo, Err: &Refusal{Reason: "the registry is read-only"},
		Detail: "the registry is read-only for now: pull works, push and delete do not"}
}
