package access

import "fmt"

// Role is what a grant lets its holder do; each includes the one before.
type Role uint8

// The roles.
const (
	None       Role = iota
	Reader          // pull
	Writer          // and push
	Maintainer      // and delete, and manage the project's keys
	Owner           // and manage members, trust rules, the project itself
	Roles           // count of roles, for tables
)

var roleNames = [Roles]string{"none", "reader", "writer", "maintainer", "owner"}

func (r Role) String() string {
	if r >= Roles {
		return roleNames[None]
	}
	return roleNames[r]
}

// ParseRole reads the name of a role other than None.
func ParseRole(s string) (Role, error) {
	for r := Reader; r < Roles; r++ {
		if roleNames[r] == s {
			return r, nil
		}
	}
	return None, fmt.Errorf("role %.32q: use reader, writer, maintainer or owner", s)
}

// MarshalText and UnmarshalText give a role its name in JSON.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func (r *Role) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRole(string(text))
	return err
}

// Right is what an operation on a repository needs.
type Right uint8

// The rights.
const (
	Pull Right = iota
	Push
	Delete
)

// needs is the least role that has each right.
var needs = [...]Role{Pull: Reader, Push: Writer, Delete: Maintainer}

// Has reports whether the role includes the right.
func (r Role) Has(right Right) bool { return r >= needs[right] }

// Visibility of a project to those who have no role in it.
type Visibility string

// The visibilities.
const (
	Private  Visibility = "private"
	Internal Visibility = "internal" // every signed-in identity may pull
	Public   Visibility = "public"   // everybody may pull
)

// ParseVisibility reads a visibility.
func ParseVisibility(s string) (Visibility, error) {
	switch v := Visibility(s); v {
	case Private, Internal, Public:
		return v, nil
	}
	return "", fmt.Errorf("visibility %.32q: use private, internal or public", s)
}

// Newcomers says what happens to those who come to an unclaimed project.
type Newcomers string

// The policies for newcomers.
const (
	Closed Newcomers = "closed" // nothing: projects are made by those who may
	Open   Newcomers = "open"   // anybody pulls and pushes; a push makes the project
	Claim  Newcomers = "claim"  // as open, and the first signed-in push owns it
)

// ParseNewcomers reads a policy for newcomers.
func ParseNewcomers(s string) (Newcomers, error) {
	switch n := Newcomers(s); n {
	case Closed, Open, Claim:
		return n, nil
	}
	return "", fmt.Errorf("policy for newcomers %.32q: use closed, open or claim", s)
}
