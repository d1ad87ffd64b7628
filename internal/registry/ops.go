package registry

import (
	"context"

	"github.com/berth-registry/berth/internal/oci"
)

// Action is what an operation does. The set is closed.
type Action uint8

// The actions. A Stat finds something without its content.
const (
	ManifestStat Action = iota
	ManifestRead
	BlobStat
	BlobRead
	BlobRedirect // content leaves by a temporary address, unseen
	BlobFind     // a mount looks for a blob in a repository that nobody named
	TagsList
	ReferrersList
	RepositoriesList
	ManifestWrite
	TagWrite
	BlobMount
	BlobWrite // the commit of an upload
	UploadStart
	UploadResume
	UploadAppend
	UploadCancel
	TagDelete
	ManifestDelete
	BlobDelete
	Actions // count of actions, for tables
)

var actionNames = [Actions]string{
	"manifest.stat", "manifest.read", "blob.stat", "blob.read", "blob.redirect", "blob.find",
	"tags.list", "referrers.list", "repositories.list",
	"manifest.write", "tag.write", "blob.mount", "blob.write",
	"upload.start", "upload.resume", "upload.append", "upload.cancel",
	"tag.delete", "manifest.delete", "blob.delete",
}

func (a Action) String() string {
	if a >= Actions {
		return "unknown"
	}
	return actionNames[a]
}

// Reads, Writes and Deletes divide the actions: exactly one of them holds.
func (a Action) Reads() bool   { return a < ManifestWrite }
func (a Action) Writes() bool  { return a >= ManifestWrite && a < TagDelete }
func (a Action) Deletes() bool { return a >= TagDelete && a < Actions }

// Op is one operation on a registry, as checks and observers see it. Fields
// that have no meaning for an action are zero.
type Op struct {
	Action Action
	Repo   string
	From   string  // BlobMount: the repository mounted from, "" for any
	Ref    oci.Ref // what is acted on; for ReferrersList the subject
	Size   int64   // bytes of the content, where they are known beforehand
	// Found holds, when an observed ManifestRead has ended well, the digest that
	// Ref stood for. It is nil for checks and for other actions.
	Found *oci.Digest
}

// Check allows an operation with nil or refuses it with the error that the
// caller shall see. Checks may refuse early; an invariant is enforced by the
// store's transaction alone. Checks run concurrently and must be quick: lists
// ask once for each item.
//
// RepositoriesList has an empty Repo for the list itself and the name for each
// item. BlobFind has an empty one when it asks for all repositories at once: a
// check allows that only where the caller may read every one.
type Check func(ctx context.Context, op Op) error

// Observer is told of an operation before it begins; the function it returns
// is called exactly once when the operation has ended, with the bytes that
// were transferred and the error, if any. Both run concurrently with those of
// other operations.
type Observer func(ctx context.Context, op Op) (done func(n int64, err error))
