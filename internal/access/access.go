// Package access is the model of who may do what: roles, grants, projects and
// those who hold them. It decides nothing by itself and stores nothing; it is
// the language in which the database, the policy and management talk.
package access

import (
	"net/netip"
	"strings"
	"time"
)

// Kind of a subject.
type Kind uint8

// The kinds.
const (
	Anonymous Kind = iota
	User           // a person
	Robot          // a project's key
	Workload       // a job that a trust rule let in
	Local          // whoever reaches a registry that asks for no log-in
)

var kindNames = [...]string{"anonymous", "user", "robot", "workload", "local"}

func (k Kind) String() string { return kindNames[k] }

// Subject is somebody as the database knows them now.
type Subject struct {
	Kind   Kind
	ID     string // of the user, project key or trust rule
	Name   string // alice; robots: project/key; workloads: project/rule
	Admin  bool   // may do everything
	Locked bool   // may do nothing
	// ValidAfter: tokens issued before do not count any more.
	ValidAfter time.Time
	Plan       string  // id of the subject's own plan, "" for the default
	Grants     []Grant // own and through groups
}

// Grant gives a role on an organization, a project, or the repositories of a
// project that lie at or below a prefix.
type Grant struct {
	OrganizationID string // one of these two is set
	ProjectID      string
	Prefix         string // a repository name of the project; "": all of it
	Role           Role
}

// RoleIn is the highest role that the grants give on a repository of p. An
// empty repo asks for the project as a whole.
func RoleIn(grants []Grant, p *Project, repo string) Role {
	role := None
	for i := range grants {
		if g := &grants[i]; g.Role > role && g.covers(p, repo) {
			role = g.Role
		}
	}
	return role
}

func (g *Grant) covers(p *Project, repo string) bool {
	if g.OrganizationID != "" {
		return g.OrganizationID == p.OrganizationID
	}
	return g.ProjectID == p.ID && Under(g.Prefix, repo)
}

// Under reports whether repo is prefix or lies below it, segment by segment.
// Everything lies under "".
func Under(prefix, repo string) bool {
	return prefix == "" || repo == prefix ||
		len(repo) > len(prefix) && strings.HasPrefix(repo, prefix) && repo[len(prefix)] == '/'
}

// Project is the first segment of repository names, with what holds for all
// repositories below it.
type Project struct {
	ID, Name       string
	OrganizationID string
	Visibility     Visibility
	Newcomers      Newcomers // "": as the server is configured
	Claimed        bool      // somebody has it, or it was made on purpose
	Plan           string    // id: the project's, else its organization's, else ""
	Deleted        bool      // and still to be had back
}

// ProjectOf is the name of the project that a repository lies in.
func ProjectOf(repo string) string {
	name, _, _ := strings.Cut(repo, "/")
	return name
}

// Key is a credential other than a password, without its secret.
type Key struct {
	ID        string
	Name      string
	UserID    string // one of these two is set
	ProjectID string
	// Role caps what the key may do. Of a user's key None means no cap.
	Role Role
	// Prefixes are the repositories the key is good for; none means all.
	Prefixes  []string
	Addresses []netip.Prefix // the callers it is good for; none means all
	CreatedAt time.Time
	CreatedBy string    // name of the subject
	ExpiresAt time.Time // zero: never
	RevokedAt time.Time // zero: not
	LastUsed  time.Time // zero: never; within the hour
}

// Covers reports whether the key is good for a repository. An empty repo asks
// for everything.
func (k *Key) Covers(repo string) bool {
	if len(k.Prefixes) == 0 {
		return true
	}
	for _, p := range k.Prefixes {
		if repo != "" && Under(p, repo) {
			return true
		}
	}
	return false
}

// TrustRule lets jobs in whose ID tokens come from an issuer and match.
type TrustRule struct {
	ID        string
	ProjectID string
	Name      string
	Issuer    string // URL
	Audience  string
	// Claims must all match; in a pattern * stands for any run of characters.
	Claims    map[string]string
	Role      Role
	Prefixes  []string // as of Key
	CreatedAt time.Time
	CreatedBy string
}

// Login is what a user's password is checked against.
type Login struct {
	UserID   string
	Password string // argon2id in PHC form, "" for none
	// ValidAfter is Subject.ValidAfter as it was together with this password.
	ValidAfter time.Time
}

// Principal is who a request is by, as its credential says. What the subject
// may do is looked up for each decision.
type Principal struct {
	Kind Kind
	ID   string // of the user, project key or trust rule; "" otherwise
	// Name is what trails and logs show: alice, acme/ci, acme/rule (its subject).
	Name     string
	KeyID    string     // of the key that was used, also where a robot is that key
	Address  netip.Addr // of the client
	IssuedAt time.Time  // of the token; zero where none was used
	// Since is Login.ValidAfter where a password was checked: when that has risen,
	// the log-in does not count any more.
	Since time.Time
}

// Owner names the principal by its id, for what must outlive a change of name.
func (p *Principal) Owner() string { return p.label(p.ID) }

// String names the principal for people: kind:name, "" for the anonymous.
func (p *Principal) String() string { return p.label(p.Name) }

func (p *Principal) label(which string) string {
	switch p.Kind {
	case Anonymous:
		return ""
	case Local:
		return p.Kind.String()
	}
	return p.Kind.String() + ":" + which
}

// Allows reports whether the key may be used from an address.
func (k *Key) Allows(a netip.Addr) bool {
	if len(k.Addresses) == 0 {
		return true
	}
	for _, p := range k.Addresses {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}
