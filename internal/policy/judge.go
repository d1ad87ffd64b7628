package policy

import (
	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/directory"
)

// verdict is whether a right is had on a repository.
type verdict struct {
	reason string // of a refusal; "": it is had
	// public: everybody has it, with whatever credential or none.
	public bool
	// claims: a write makes the subject the project's owner.
	claims bool
	// deleted: it would be had if the project were not deleted.
	deleted bool
}

// judge decides whether a subject has a right on a repository of a project,
// nil for one that does not exist. Tokens are not its business.
func (p *Policy) judge(s *directory.Standing, project *access.Project, repo string, right access.Right) verdict {
	covered := s.Covers(repo)
	role := access.None
	if covered {
		role = min(s.Cap(), roleIn(&s.Subject, project, repo))
	}
	newcomers := p.newcomers(project, access.ProjectOf(repo))
	welcome := newcomers != access.Closed
	switch {
	case project != nil && project.Deleted:
		return verdict{reason: "the project is deleted", deleted: role.Has(right)}
	case right == access.Pull && (welcome || project != nil && project.Visibility == access.Public):
		return verdict{public: true}
	case !covered:
		return verdict{reason: "the credential is not good for this repository"}
	case right == access.Push && welcome && s.Cap().Has(access.Push):
		return verdict{claims: newcomers == access.Claim && s.Subject.Kind == access.User}
	case role.Has(right):
		return verdict{}
	case right == access.Pull && project != nil && project.Visibility == access.Internal && s.Subject.Kind != access.Anonymous:
		return verdict{}
	}
	return verdict{reason: missingRight[right]}
}

var missingRight = [...]string{
	access.Pull:   "no right to pull",
	access.Push:   "no right to push",
	access.Delete: "no right to delete",
}

// newcomers is what those without a role may expect of a project. One that
// somebody has claimed is closed to them.
func (p *Policy) newcomers(project *access.Project, name string) access.Newcomers {
	own := access.Newcomers("")
	if project != nil {
		own = project.Newcomers
	}
	switch {
	case own != access.Open && p.o.Reserved(name):
		return access.Closed
	case project == nil || !project.Claimed && project.Newcomers == "":
		return p.o.Newcomers
	case project.Claimed:
		return access.Closed
	}
	return project.Newcomers
}

// roleIn is the role of a subject in a project that need not exist.
func roleIn(s *access.Subject, project *access.Project, repo string) access.Role {
	switch {
	case s.Admin:
		return access.Owner
	case project == nil:
		return access.None
	}
	return access.RoleIn(s.Grants, project, repo)
}
