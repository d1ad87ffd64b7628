// Package registry declares what a registry is: one interface that the hosted
// store, the client of a remote registry and every wrapper around them share.
// It knows nothing of HTTP; a front translates.
package registry

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/berth-registry/berth/internal/oci"
)

// Registry is a set of repositories that can be read, written and pruned.
//
// Repository names, references and digests that reach a Registry have been
// validated by their oci parsers. All methods are safe for concurrent use.
// Every error carries a Code (see CodeOf); one without is an internal fault.
type Registry interface {
	Reader
	Writer
	Deleter
}

// Reader is the pulling half of a registry.
type Reader interface {
	// Resolve finds a manifest's media type, digest and size without its
	// content. Errors: NameUnknown, ManifestUnknown.
	Resolve(ctx context.Context, repo string, ref oci.Ref) (oci.Descriptor, error)

	// Manifest returns a manifest's exact bytes with their descriptor.
	// Errors: NameUnknown, ManifestUnknown.
	Manifest(ctx context.Context, repo string, ref oci.Ref) (Manifest, error)

	// Blob finds a blob that repo links. Nothing is opened yet.
	// Errors: NameUnknown, BlobUnknown.
	Blob(ctx context.Context, repo string, d oci.Digest) (Blob, error)

	// Tags lists the tags that sort bytewise after the given one, in order.
	// Errors: NameUnknown, as the first element.
	Tags(ctx context.Context, repo, after string) iter.Seq2[string, error]

	// Referrers lists descriptors, with artifactType and annotations, of the
	// manifests in repo whose subject is the given digest, ordered by digest,
	// starting behind after ("" for all). An artifactType other than ""
	// filters. An unknown repository or subject has no referrers: no error.
	// Errors: NameUnknown, as the first element, of a repository that is not to
	// be had here, where an empty list would read as "not signed".
	Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error]

	// Repositories lists the names that sort bytewise after the given one.
	Repositories(ctx context.Context, after string) iter.Seq2[string, error]

	// Holders lists repositories that a blob can be mounted from, in no order,
	// but those of near's project before others. It may leave some out: it is
	// for finding one, and who finds none sends the bytes.
	Holders(ctx context.Context, near string, d oci.Digest) iter.Seq2[string, error]
}

// Writer is the pushing half of a registry. When a method returns without an
// error, what it wrote survives the loss of power.
type Writer interface {
	// PutManifest stores m.Content byte for byte under its digest and points
	// the tags at it, all or nothing. m.MediaType is the client's Content-Type
	// ("" if it sent none); m.Digest, when set, must match the content and
	// chooses the algorithm, else the digest is sha256; m.Size is ignored.
	// Errors: DigestInvalid, ManifestInvalid, ManifestBlobUnknown (Detail names
	// each missing digest), ManifestTooLarge.
	PutManifest(ctx context.Context, repo string, m Manifest, tags ...string) (PutResult, error)

	// Mount links a blob of the repository from into repo without a transfer.
	// An empty from stands for any repository of this registry.
	// Errors: BlobUnknown, Unsupported; a front then starts an upload instead.
	Mount(ctx context.Context, repo, from string, d oci.Digest) (oci.Descriptor, error)

	// StartUpload opens an upload session that outlives the process.
	StartUpload(ctx context.Context, repo string, o UploadOptions) (Upload, error)

	// ResumeUpload takes up a session of this repository by its id.
	// Errors: UploadUnknown, also for a session of another repository.
	ResumeUpload(ctx context.Context, repo, id string) (Upload, error)
}

// Deleter removes content. A deletion is complete when the method returns.
type Deleter interface {
	// DeleteTag removes the tag and leaves its manifest.
	// Errors: NameUnknown, ManifestUnknown.
	DeleteTag(ctx context.Context, repo, tag string) error

	// DeleteManifest removes a manifest and every tag that points at it.
	// Errors: NameUnknown, ManifestUnknown, Referenced (an index holds it).
	DeleteManifest(ctx context.Context, repo string, d oci.Digest) error

	// DeleteBlob removes repo's link to a blob.
	// Errors: NameUnknown, BlobUnknown, Referenced (a manifest holds it).
	DeleteBlob(ctx context.Context, repo string, d oci.Digest) error
}

// Manifest is a manifest's content with what describes it.
type Manifest struct {
	MediaType string
	Digest    oci.Digest
	Content   []byte
}

// Descriptor of the manifest.
func (m Manifest) Descriptor() oci.Descriptor {
	return oci.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Content))}
}

// PutResult says what PutManifest stored.
type PutResult struct {
	Descriptor oci.Descriptor
	// Subject is set when the manifest has one and this registry lists it
	// among the subject's referrers (the OCI-Subject header).
	Subject oci.Digest
}

// Blob is a blob that was found. It serves HEAD, GET, ranges and redirects.
type Blob interface {
	Descriptor() oci.Descriptor

	// Open reads n bytes from off; both lie within the descriptor's size.
	// The caller closes the reader. Errors: BlobUnknown.
	Open(ctx context.Context, off, n int64) (io.ReadCloser, error)

	// URL is a temporary address that serves the bytes without credentials.
	// Errors: Unsupported; the caller then streams with Open.
	URL(ctx context.Context, ttl time.Duration) (string, error)
}

// UploadOptions for StartUpload.
type UploadOptions struct {
	// Algorithm of the digest the client announces; "" where it names none:
	// the bytes are then hashed as sha256 while they arrive.
	Algorithm oci.Algorithm
}

// Upload is an upload session. Its methods must not be called concurrently on
// one value; two values may stand for the same session, of which one wins.
type Upload interface {
	// ID is the session's name: opaque, unguessable, safe in a URL.
	ID() string

	// Offset is the number of bytes durably received, as of the last call.
	Offset() int64

	// Append adds the bytes of r at off, which must be the session's offset;
	// a negative off means wherever it stands. When r fails, what was received
	// is kept: Offset tells. Errors: RangeInvalid (wrong off, or another
	// request is writing), UploadUnknown, SizeInvalid, InsufficientStorage.
	Append(ctx context.Context, off int64, r io.Reader) error

	// Commit appends the bytes of r like Append (r may be nil), and if the
	// whole content has digest d links it as a blob and ends the session. On
	// DigestInvalid the session lives on, with all bytes received.
	// Errors: those of Append, and DigestInvalid.
	Commit(ctx context.Context, off int64, r io.Reader, d oci.Digest) (oci.Descriptor, error)

	// Cancel ends the session and frees its bytes. Errors: UploadUnknown.
	Cancel(ctx context.Context) error
}
