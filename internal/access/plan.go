package access

import (
	"fmt"
	"time"
)

// DefaultPlan is the id of the plan of those who have no other.
const DefaultPlan = "default"

// Plan bounds what is used. A zero quota is none.
type Plan struct {
	ID, Name     string
	Rates        []Rate
	MaxBlob      int64 // bytes of one blob
	MaxManifest  int64 // bytes of one manifest
	Storage      int64 // bytes of a project, each blob counted once
	Repositories int64 // of a project
	CreatedAt    time.Time
}

// Rate allows an amount within any period of its window.
type Rate struct {
	Per    Scope         `json:"per"`
	Unit   Unit          `json:"unit"`
	Window time.Duration `json:"window"` // a minute, an hour or a day
	Amount int64         `json:"amount"`
}

// Scope is what a rate is counted by.
type Scope string

// The scopes. A rate per address holds of the default plan, one per identity
// or key of the user's plan, one per project or organization of theirs.
const (
	PerAddress      Scope = "address"
	PerIdentity     Scope = "identity"
	PerKey          Scope = "key"
	PerProject      Scope = "project"
	PerOrganization Scope = "organization"
)

// Unit is what a rate counts.
type Unit string

// The units.
const (
	Requests Unit = "requests"
	Bytes    Unit = "bytes" // of content, in both directions
)

// Validate says what is wrong with a rate.
func (r Rate) Validate() error {
	switch r.Per {
	case PerAddress, PerIdentity, PerKey, PerProject, PerOrganization:
	default:
		return fmt.Errorf("rate per %.32q: use address, identity, key, project or organization", r.Per)
	}
	switch r.Unit {
	case Requests, Bytes:
	default:
		return fmt.Errorf("rate of %.32q: use requests or bytes", r.Unit)
	}
	switch r.Window {
	case time.Minute, time.Hour, 24 * time.Hour:
	default:
		return fmt.Errorf("window %v: use minute, hour or day", r.Window)
	}
	if r.Amount <= 0 {
		return fmt.Errorf("amount %d: must be more than nothing", r.Amount)
	}
	return nil
}
