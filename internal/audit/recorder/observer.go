package recorder

import (
	"context"
	"errors"

	"github.com/berth-registry/berth/internal/audit"
	"github.com/berth-registry/berth/internal/registry"
)

// Observer records pulls of manifests and every refusal. It belongs outside of
// Guard. Not recorded are
//   - pushes and deletes that succeeded: their transactions do that;
//   - what merely did not work, such as a manifest that is not there;
//   - reads other than of manifests, for each pull begins with one;
//   - anonymous callers that are asked to log in: every pull begins like that.
func (r *Recorder) Observer() registry.Observer {
	return func(ctx context.Context, op registry.Op) func(int64, error) {
		return func(n int64, err error) {
			if err != nil || op.Action == registry.ManifestRead {
				r.observe(ctx, &op, n, err)
			}
		}
	}
}

func (r *Recorder) observe(ctx context.Context, op *registry.Op, n int64, err error) {
	caller := audit.CallerOf(ctx)
	if caller == nil {
		return
	}
	status, reason := statusOK, ""
	if err != nil {
		code, why, refused := refusal(caller, err)
		if !refused {
			return
		}
		status, reason = r.o.Status(code), why
	}
	e := caller.Event(op.Action.String())
	e.Repository, e.Reference, e.Digest = op.Repo, op.Ref.Tag, string(op.Ref.Digest)
	if op.Found != nil && err == nil {
		e.Digest = string(*op.Found) // what the tag stood for then
	}
	e.Bytes, e.Status, e.Reason = n, status, reason
	r.Record(e)
}

// refusal reports whether an operation failed because the caller may not do it,
// and why.
func refusal(caller *audit.Caller, err error) (code registry.Code, reason string, refused bool) {
	code = registry.CodeOf(err)
	anonymous := caller.Identity == ""
	var reasoner audit.Reasoner
	switch {
	case code == registry.Unauthorized && anonymous:
		return code, "", false
	case errors.As(err, &reasoner):
		return code, reasoner.AuditReason(), true
	}
	switch code {
	case registry.Unauthorized, registry.Denied, registry.TooManyRequests, registry.InsufficientStorage:
		return code, code.String(), true
	}
	return code, "", false
}
