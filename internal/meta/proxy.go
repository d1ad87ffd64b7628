package meta

import (
	"time"

	"github.com/berth-registry/berth/internal/oci"
)

// ProxyTag is what an upstream last said of a reference: a tag, or a digest that
// it did not have.
type ProxyTag struct {
	Digest    oci.Digest // "": there is no such manifest
	CheckedAt time.Time  // the zero Time: to be asked again
	// GoneSince is when a tag with a Digest was first missing upstream; the zero
	// Time: it is there.
	GoneSince time.Time
}

// ProxyManifest is a manifest that came from an upstream.
type ProxyManifest struct {
	Proxy      string
	Repository string // here
	Digest     oci.Digest
	Subject    oci.Digest // "": none
	FetchedAt  time.Time
	UsedAt     time.Time
	Prefetched bool
}

// ProxyUse is a manifest that was asked for.
type ProxyUse struct {
	Repository string
	Digest     oci.Digest
	At         time.Time
}

// ProxyReferrers is what an upstream last said of the referrers of a subject:
// all of them, as a JSON list of descriptors.
type ProxyReferrers struct {
	List      []byte
	CheckedAt time.Time
}

// Proxy is an upstream that an administrator added.
type Proxy struct {
	Name      string // of the project that is its cache
	Spec      string // JSON
	Secret    []byte // sealed; nil: none
	CreatedAt time.Time
	UpdatedAt time.Time
}
