package ocihttp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/berth-registry/berth/internal/auth"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// startOptions are the parameters of an upload's start.
type startOptions struct {
	mount, digest oci.Digest
	from          string
	algorithm     oci.Algorithm
}

func (x *exchange) startOptions() (o startOptions, err error) {
	if o.mount, err = x.req.digestParam("mount"); err != nil {
		return o, err
	}
	if o.digest, err = x.req.digestParam("digest"); err != nil {
		return o, err
	}
	if o.from, err = x.req.param("from"); err != nil {
		return o, err
	}
	if o.from != "" && o.mount != "" {
		if err := oci.CheckRepository(o.from); err != nil {
			return o, err
		}
	}
	name, err := x.req.param("digest-algorithm")
	if name == "" || err != nil {
		return o, err
	}
	o.algorithm, err = oci.ParseAlgorithm(name)
	return o, err
}

// startUpload mounts, or takes the blob whole, or opens a session.
func (x *exchange) startUpload() error {
	o, err := x.startOptions()
	if err != nil {
		return err
	}
	if o.mount != "" {
		desc, err := x.reg.Mount(x.ctx, x.req.repo, o.from, o.mount)
		if err == nil {
			return x.blobCreated(desc)
		}
		if errors.Is(err, auth.ErrInsufficientScope) {
			// The caller may read from; a better token saves sending the bytes.
			return &registry.Error{Code: registry.Unauthorized, Repo: x.req.repo, Err: err}
		}
		if !mountFallsBack(err) {
			return err
		}
	}
	if o.digest != "" {
		return x.takeWhole(o.digest)
	}
	if o.algorithm == "" && o.mount != "" {
		o.algorithm = o.mount.Algorithm()
	}
	up, err := x.reg.StartUpload(x.ctx, x.req.repo, registry.UploadOptions{Algorithm: o.algorithm})
	if err != nil {
		return err
	}
	return x.uploadAt(http.StatusAccepted, up)
}

// mountFallsBack reports whether a failed mount means that the client has to
// send the bytes. Whether it may is for StartUpload to say.
func mountFallsBack(err error) bool {
	switch registry.CodeOf(err) {
	case registry.BlobUnknown, registry.NameUnknown, registry.Unsupported, registry.Denied, registry.Unauthorized:
		return true
	}
	return false
}

// takeWhole is the push of a blob in a single POST. No client knows of the
// session behind it, so that a failure ends it.
func (x *exchange) takeWhole(d oci.Digest) error {
	up, err := x.reg.StartUpload(x.ctx, x.req.repo, registry.UploadOptions{Algorithm: d.Algorithm()})
	if err != nil {
		return err
	}
	desc, err := up.Commit(x.ctx, 0, x.reader(), d)
	if err == nil {
		return x.blobCreated(desc)
	}
	if failed := up.Cancel(context.WithoutCancel(x.ctx)); failed != nil {
		x.h.Log.LogAttrs(x.ctx, slog.LevelWarn, "an upload session stays until it expires",
			slog.String("request_id", x.requestID), slog.Any("error", failed))
	}
	// The session is this request's alone: elsewhere it can only be after a crash.
	if registry.IsCode(err, registry.UploadUnknown) || registry.IsCode(err, registry.RangeInvalid) {
		return &registry.Error{Code: registry.Unavailable, Repo: x.req.repo, Err: err,
			Detail: "what was received was lost in a failure of the storage or the database; send it again"}
	}
	return x.blame(err)
}

func (x *exchange) patchUpload() error {
	off, err := x.chunk()
	if err != nil {
		return err
	}
	up, err := x.reg.ResumeUpload(x.ctx, x.req.repo, x.req.upload)
	if err != nil {
		return err
	}
	if x.body != nil {
		if err := up.Append(x.ctx, off, x.body); err != nil {
			return x.uploadFailed(up, err)
		}
	}
	return x.uploadAt(http.StatusAccepted, up)
}

func (x *exchange) putUpload() error {
	d, err := x.req.digestParam("digest")
	if err != nil {
		return err
	}
	if d == "" {
		return registry.Errorf(registry.DigestInvalid, x.req.repo, "name the blob's digest in the parameter digest")
	}
	off, err := x.chunk()
	if err != nil {
		return err
	}
	up, err := x.reg.ResumeUpload(x.ctx, x.req.repo, x.req.upload)
	if err != nil {
		return err
	}
	desc, err := up.Commit(x.ctx, off, x.reader(), d)
	if err != nil {
		return x.uploadFailed(up, err)
	}
	return x.blobCreated(desc)
}

// chunk reads the Content-Range of a chunk and holds the body to it. The
// offset is -1, wherever the session stands, without one.
func (x *exchange) chunk() (off int64, err error) {
	header := x.r.Header.Get("Content-Range")
	if header == "" {
		return -1, nil
	}
	part, ok := parseContentRange(header)
	if !ok {
		return 0, registry.Errorf(registry.UploadInvalid, x.req.repo,
			"Content-Range %.64q is malformed; write <first byte>-<last byte>", header)
	}
	if x.r.ContentLength >= 0 && x.r.ContentLength != part.n {
		return 0, registry.Errorf(registry.SizeInvalid, x.req.repo,
			"Content-Range announces %d bytes, Content-Length %d", part.n, x.r.ContentLength)
	}
	if x.body != nil {
		x.body.want = part.n
	}
	return part.off, nil
}

func (x *exchange) uploadStatus() error {
	up, err := x.reg.ResumeUpload(x.ctx, x.req.repo, x.req.upload)
	if err != nil {
		return err
	}
	return x.uploadAt(http.StatusNoContent, up)
}

func (x *exchange) cancelUpload() error {
	up, err := x.reg.ResumeUpload(x.ctx, x.req.repo, x.req.upload)
	if err != nil {
		return err
	}
	if err := up.Cancel(x.ctx); err != nil {
		return err
	}
	x.respond(http.StatusNoContent, 0)
	return nil
}

// uploadAt answers with where a session is and stands.
func (x *exchange) uploadAt(status int, up registry.Upload) error {
	x.setUpload(up)
	x.set("Docker-Upload-Uuid", up.ID())
	x.respond(status, 0)
	return nil
}

// uploadFailed tells a client that sent the wrong bytes where to go on.
func (x *exchange) uploadFailed(up registry.Upload, err error) error {
	err = x.blame(err)
	if registry.IsCode(err, registry.RangeInvalid) {
		x.setUpload(up)
	}
	return err
}

// setUpload sets a session's Location and Range. The last byte of nothing is
// written 0, as clients expect; the form has no better, so that the exact number
// of bytes stands beside it.
func (x *exchange) setUpload(up registry.Upload) {
	x.set("Location", "/v2/"+x.req.repo+"/blobs/uploads/"+up.ID())
	x.set("Range", fmt.Sprintf("0-%d", max(up.Offset()-1, 0)))
	x.set("Upload-Offset", strconv.FormatInt(up.Offset(), 10))
}

func (x *exchange) blobCreated(desc oci.Descriptor) error {
	x.set("Location", "/v2/"+x.req.repo+"/blobs/"+string(desc.Digest))
	x.set("Docker-Content-Digest", string(desc.Digest))
	x.respond(http.StatusCreated, 0)
	return nil
}
