package upstream

import (
	"context"
	"time"
)

// Kind is what a request is about.
type Kind string

// The kinds.
const (
	KindManifest  Kind = "manifest"
	KindBlob      Kind = "blob"
	KindReferrers Kind = "referrers"
	KindTags      Kind = "tags"
	KindCatalog   Kind = "catalog"
	KindToken     Kind = "token"
	KindOther     Kind = "other"
)

// Role is what a host is to us.
type Role string

// The roles.
const (
	RoleRegistry Role = "registry"
	RoleToken    Role = "token"
	RoleStorage  Role = "storage" // where a registry redirects to
)

// Call is a request that was sent and is over, body included.
type Call struct {
	Kind     Kind
	Role     Role
	Host     string
	Method   string
	Status   int // 0: no answer
	Duration time.Duration
	Bytes    int64 // of the body
	Err      error // why there was no answer, or half of one
}

// Class is that of the status, "2xx" to "5xx", or "failed" for a call without a
// whole answer.
func (c Call) Class() string {
	if c.Err != nil || c.Status < 100 || c.Status > 599 {
		return "failed"
	}
	return string(rune('0'+c.Status/100)) + "xx"
}

// kindKey is that of a Kind in a context.
type kindKey struct{}

func withKind(ctx context.Context, k Kind) context.Context {
	return context.WithValue(ctx, kindKey{}, k)
}

func kindOf(ctx context.Context) Kind {
	if k, ok := ctx.Value(kindKey{}).(Kind); ok {
		return k
	}
	return KindOther
}
