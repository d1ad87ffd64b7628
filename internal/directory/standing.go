package directory

import (
	"context"
	"errors"
	"time"

	"github.com/berth-registry/berth/internal/access"
)

// Standing is what a principal is at this moment.
type Standing struct {
	Subject access.Subject
	Key     *access.Key // that was used, if any
	// Prefixes are the repositories that a workload is good for; none: all.
	Prefixes []string
}

// Covers reports whether the credential is good for a repository; an empty
// repo asks for everything.
func (s *Standing) Covers(repo string) bool {
	k := s.Key
	if k == nil {
		k = &access.Key{Prefixes: s.Prefixes}
	}
	return k.Covers(repo)
}

// Cap is the highest role that the credential lets its subject use.
func (s *Standing) Cap() access.Role {
	switch {
	case s.Key != nil && s.Key.Role != access.None:
		return s.Key.Role
	case s.Subject.Kind == access.Workload:
		return s.Subject.Grants[0].Role
	}
	return access.Owner
}

// Standing looks a principal up. A LapsedError says that the credential does
// not count any more; any other error that it could not be found out.
func (d *Directory) Standing(ctx context.Context, p *access.Principal) (Standing, error) {
	switch p.Kind {
	case access.User:
		return d.userStanding(ctx, p)
	case access.Robot:
		return d.robotStanding(ctx, p)
	case access.Workload:
		return d.workloadStanding(ctx, p)
	case access.Local:
		return Standing{Subject: access.Subject{Kind: access.Local, Name: "local", Admin: true}}, nil
	}
	return Standing{}, nil
}

// LapsedError is the reason why a credential does not count any more. It is for
// logs and the audit trail; clients are told that log-in is required.
type LapsedError struct{ Reason string }

func (e *LapsedError) Error() string { return e.Reason }

// AuditReason is what the trail is told.
func (e *LapsedError) AuditReason() string { return e.Reason }

func lapsed(err error, reason string) error {
	if err == nil || errors.Is(err, access.ErrNotFound) {
		return &LapsedError{reason}
	}
	return err
}

func (d *Directory) userStanding(ctx context.Context, p *access.Principal) (s Standing, err error) {
	if p.KeyID != "" {
		if s.Key, err = d.key(ctx, p); err != nil {
			return s, err
		}
		if s.Key.UserID != p.ID {
			return s, lapsed(nil, "the key is not the user's")
		}
	}
	u, err := d.User(ctx, p.ID)
	switch {
	case err != nil:
		return s, lapsed(err, "the user is gone")
	case u.Locked:
		return s, lapsed(nil, "the user is locked")
	case !p.IssuedAt.IsZero() && p.IssuedAt.Before(u.ValidAfter):
		return s, lapsed(nil, "the user's sessions were ended")
	}
	s.Subject = *u
	return s, nil
}

func (d *Directory) robotStanding(ctx context.Context, p *access.Principal) (s Standing, err error) {
	if s.Key, err = d.key(ctx, p); err != nil {
		return s, err
	}
	s.Subject, err = d.inProject(ctx, access.Robot, p.ID, s.Key.ProjectID, s.Key.Name, s.Key.Role)
	return s, err
}

func (d *Directory) workloadStanding(ctx context.Context, p *access.Principal) (s Standing, err error) {
	r, err := d.TrustRule(ctx, p.ID)
	if err != nil {
		return s, lapsed(err, "the trust rule is gone")
	}
	s.Prefixes = r.Prefixes
	s.Subject, err = d.inProject(ctx, access.Workload, p.ID, r.ProjectID, r.Name, r.Role)
	return s, err
}

// inProject is a subject that has one role in one project.
func (d *Directory) inProject(ctx context.Context, kind access.Kind, id, projectID, name string, role access.Role) (access.Subject, error) {
	p, err := d.ProjectByID(ctx, projectID)
	if err != nil {
		return access.Subject{}, lapsed(err, "the project is gone")
	}
	if p.Deleted {
		return access.Subject{}, lapsed(nil, "the project is deleted")
	}
	return access.Subject{
		Kind: kind, ID: id, Name: p.Name + "/" + name, Plan: p.Plan,
		Grants: []access.Grant{{ProjectID: projectID, Role: role}},
	}, nil
}

// key finds the principal's key and holds it against its bounds.
func (d *Directory) key(ctx context.Context, p *access.Principal) (*access.Key, error) {
	k, err := d.Key(ctx, p.KeyID)
	switch {
	case err != nil:
		return nil, lapsed(err, "the key is gone")
	case !k.RevokedAt.IsZero():
		return nil, lapsed(nil, "the key is revoked")
	case !k.ExpiresAt.IsZero() && !time.Now().Before(k.ExpiresAt):
		return nil, lapsed(nil, "the key has expired")
	case !k.Allows(p.Address):
		return nil, lapsed(nil, "the key is not for this address")
	}
	return k, nil
}
