package ocihttp

import "net/http"

func (x *exchange) deleteManifest() error {
	if x.req.ref.IsDigest() {
		return x.accepted(x.reg.DeleteManifest(x.ctx, x.req.repo, x.req.ref.Digest))
	}
	return x.accepted(x.reg.DeleteTag(x.ctx, x.req.repo, x.req.ref.Tag))
}

func (x *exchange) deleteBlob() error {
	return x.accepted(x.reg.DeleteBlob(x.ctx, x.req.repo, x.req.digest))
}

// accepted answers a deletion, which is complete by then; the status is the
// specification's.
func (x *exchange) accepted(err error) error {
	if err != nil {
		return err
	}
	x.respond(http.StatusAccepted, 0)
	return nil
}
