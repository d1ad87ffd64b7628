package manage

import (
	"bytes"
	"encoding/gob"
	"time"

	"github.com/berth-registry/berth/internal/access"
	"github.com/berth-registry/berth/internal/meta"
)

// Project is a project as one caller sees it.
type Project struct {
	meta.Project
	Role access.Role // of the caller in the project as a whole
	// Content is nil where it was not asked for, or is not for the caller; so is
	// what the project uses.
	Content *meta.Counts
}

// NewProject is a project that is asked for. Names are of an organization and
// a plan; of the latter "" is none of its own.
type NewProject struct {
	Name, Organization, Plan string
	Visibility               access.Visibility
	Newcomers                access.Newcomers
}

// ProjectFilter narrows a list of projects.
type ProjectFilter struct {
	Organization string // name; "": of all
	Deleted      bool   // those that can be restored instead of the others
}

// ProjectChange is what changes; nil stays. Organization and Plan are names.
type ProjectChange struct {
	Visibility         *access.Visibility
	Newcomers          *access.Newcomers
	Organization, Plan *string
}

// MemberKind says what the name of a member is of.
type MemberKind string

// The kinds of members.
const (
	UserMember  MemberKind = "user"
	GroupMember MemberKind = "group"
)

// Member names who has a role, or shall have.
type Member struct {
	Kind   MemberKind
	Name   string
	Prefix string // of a project's members: where the role holds
	Role   access.Role
	Since  time.Time
}

// NewKey is a key that is asked for.
type NewKey struct {
	Name      string
	Role      access.Role // None of a user's key: as much as the user may
	Prefixes  []string
	Addresses []string
	ExpiresAt time.Time // zero: never
}

// CreatedKey is a key with its secret.
type CreatedKey struct {
	access.Key
	Secret string
}

// NewUser is a user that is asked for.
type NewUser struct {
	Name, Password, Plan string
	Admin                bool
}

// Self is who a caller is.
type Self struct {
	Kind  access.Kind
	Name  string
	Admin bool
	KeyID string
}

// encode and decode keep a result for a request that is sent again. JSON would
// not do: a role of none has no name there.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

func decode[T any](b []byte) (v T, err error) {
	return v, gob.NewDecoder(bytes.NewReader(b)).Decode(&v)
}
