package hosted

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/meta"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// A lease outlives a frozen process by leaseTTL at most; a live one renews it
// in time.
const (
	leaseTTL   = 15 * time.Second
	leaseRenew = leaseTTL / 3
	leaseAgain = leaseTTL / 60 // what the database did not answer
	freeWait   = 2 * time.Second
)

// upload is one caller's view of a session. The session itself is its row.
type upload struct {
	r     *Registry
	row   meta.Upload
	ended bool // the session, and its lease with it
}

func (u *upload) ID() string    { return u.row.ID }
func (u *upload) Offset() int64 { return u.row.Size }

func (u *upload) Append(ctx context.Context, off int64, r io.Reader) error {
	return u.leased(ctx, off, func(ctx context.Context, l *lease) error {
		h, err := hashOf(u.row)
		if err != nil {
			return err
		}
		received, err := u.receive(ctx, l, r, h)
		if !received {
			return err
		}
		return errors.Join(err, u.save(ctx, h))
	})
}

func (u *upload) Commit(ctx context.Context, off int64, r io.Reader, d oci.Digest) (oci.Descriptor, error) {
	err := u.leased(ctx, off, func(ctx context.Context, l *lease) error {
		u.chooseAlgorithm(d)
		h, err := hashOf(u.row)
		if err != nil {
			return err
		}
		received := false
		if r != nil {
			received, err = u.receive(ctx, l, r, h)
		}
		if err == nil {
			err = u.commit(ctx, l, h, d)
		}
		if err != nil && received && !u.ended {
			err = errors.Join(err, u.save(ctx, h))
		}
		return err
	})
	if err != nil {
		return oci.Descriptor{}, err
	}
	return oci.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: u.row.Size}, nil
}

// chooseAlgorithm follows the digest of a commit while there are no bytes yet.
func (u *upload) chooseAlgorithm(d oci.Digest) {
	if u.row.Size > 0 || u.row.Algorithm == d.Algorithm() {
		return
	}
	if hash, err := d.Algorithm().New().MarshalBinary(); err == nil {
		u.row.Algorithm, u.row.Hash = d.Algorithm(), hash
	}
}

// commit seals bytes that have the digest d and links them.
func (u *upload) commit(ctx context.Context, l *lease, h oci.Hash, d oci.Digest) error {
	hashed := u.row.Algorithm == d.Algorithm()
	if hashed {
		if got := d.Algorithm().FromHash(h); got != d {
			return registry.Errorf(registry.DigestInvalid, u.row.Repository,
				"the %d bytes received have digest %s, not %s; finish with that digest, or cancel and start anew", u.row.Size, got, d)
		}
	}
	if err := l.lost(); err != nil { // not every blob store keeps what another may have sealed since
		return u.coded(err)
	}
	err := u.r.blobs.Seal(ctx, u.row.ID, state(u.row))
	if before := errors.Is(err, blob.ErrSealed); before || err == nil && !hashed {
		err = u.verify(ctx, d)
	}
	if errors.Is(err, blob.ErrNotFound) { // for good: the session is of no use any more
		err = errors.Join(err, u.drop(ctx))
	}
	if err != nil {
		return u.coded(err)
	}
	kept, err := u.r.db.CommitBlob(ctx, u.row, d)
	if errors.Is(err, meta.ErrLeased) || errors.Is(err, meta.ErrNotFound) {
		u.disown(ctx)
	}
	if err != nil {
		return u.coded(err)
	}
	u.ended = true
	if !kept {
		u.free(ctx, meta.DeadObject{Key: u.row.ID})
	}
	return nil
}

// verify reads the sealed bytes once more. Only two kinds of sessions need
// this: those of clients that announced no algorithm when they started, and then
// finish with another than sha256; and those that a crash, or a process that was
// frozen, has sealed before. Everyone else's bytes are hashed as they arrive.
// Nothing can be added to sealed bytes, so wrong ones end the session.
func (u *upload) verify(ctx context.Context, d oci.Digest) error {
	rc, err := u.r.blobs.Open(ctx, u.row.ID, 0, u.row.Size)
	if err != nil {
		return err
	}
	defer rc.Close()
	h := d.Algorithm().New()
	if _, err = io.Copy(h, rc); err != nil {
		return err
	}
	got := d.Algorithm().FromHash(h)
	if got == d {
		return nil
	}
	if err := u.drop(ctx); err != nil {
		return err
	}
	return registry.Errorf(registry.DigestInvalid, u.row.Repository,
		"the %d bytes received have digest %s, not %s, and the upload is cancelled; start anew, with the parameter digest-algorithm=%s if that is what you mean to use",
		u.row.Size, got, d, d.Algorithm())
}

// drop ends a session and frees its bytes.
func (u *upload) drop(ctx context.Context) error {
	if err := u.r.db.CancelUpload(ctx, u.row); err != nil {
		return err
	}
	u.ended = true
	u.free(ctx, meta.DeadObject{Key: u.row.ID, Unsealed: true, Size: u.row.Size, State: u.row.State})
	return nil
}

// disown frees bytes that were sealed when others had ended the session and freed
// what there was of it, as a process does that was frozen before. Their key has
// no row any more and never gets another: no collection would find them.
func (u *upload) disown(ctx context.Context) {
	_, _, err := u.r.db.KeyOwner(context.WithoutCancel(ctx), u.row.ID)
	if errors.Is(err, meta.ErrNotFound) {
		u.free(ctx, meta.DeadObject{Key: u.row.ID})
	}
}

// free frees bytes that no row names any more, without keeping the client for
// long. What fails is left to Collect.
func (u *upload) free(ctx context.Context, o meta.DeadObject) {
	freed := make(chan struct{})
	go func() {
		defer close(freed)
		u.r.free(ctx, o)
	}()
	select {
	case <-freed:
	case <-time.After(freeWait):
	}
}

// receive streams r behind what is stored, through the hash. With received
// the row and h agree on the bytes, also if err says that r broke off.
func (u *upload) receive(ctx context.Context, l *lease, r io.Reader, h oci.Hash) (received bool, err error) {
	body := &hashingReader{r: r, h: h, lease: l, room: math.MaxInt64}
	if u.row.MaxBlob > 0 {
		body.room = max(0, u.row.MaxBlob-u.row.Size)
	}
	s, err := u.r.blobs.Append(ctx, u.row.ID, state(u.row), body)
	if s.Size != u.row.Size+body.n {
		// Bytes were read, but not kept: the stored row stands.
		if err == nil {
			err = errors.New("the blob store kept fewer bytes than it read")
		}
		if errors.Is(err, blob.ErrNotFound) { // for good: a process that died or froze has sealed them
			err = errors.Join(err, u.drop(ctx))
		}
		return false, u.coded(err)
	}
	setState(&u.row, s)
	return true, u.coded(err)
}

// save makes progress durable, even for a client that has gone.
func (u *upload) save(ctx context.Context, h oci.Hash) error {
	hash, err := h.MarshalBinary()
	if err != nil {
		return err
	}
	u.row.Hash = hash
	return u.coded(u.r.db.SaveUpload(context.WithoutCancel(ctx), u.row))
}

func (u *upload) Cancel(ctx context.Context) error {
	return u.leased(ctx, -1, func(ctx context.Context, _ *lease) error {
		return u.coded(u.drop(ctx))
	})
}

// leased runs fn as the session's one writer, standing at off.
func (u *upload) leased(ctx context.Context, off int64, fn func(context.Context, *lease) error) error {
	asked := time.Now()
	row, err := u.r.db.LeaseUpload(ctx, u.row.Repository, u.row.ID, leaseTTL)
	if err == nil || errors.Is(err, meta.ErrLeased) {
		u.row = row
	}
	if err != nil {
		return u.coded(err)
	}
	l := holdLease(u.r.db, row, asked)
	defer u.release(ctx, l)
	if off >= 0 && off != row.Size {
		return registry.Errorf(registry.RangeInvalid, row.Repository, "the upload stands at byte %d, not %d", row.Size, off)
	}
	return fn(ctx, l)
}

// release gives the lease back, also for a client that has gone. While the
// database is not available that is tried again, for the client will come back;
// then the lease runs out by itself.
func (u *upload) release(ctx context.Context, l *lease) {
	l.stop()
	if u.ended {
		return
	}
	ctx, db, id, version := context.WithoutCancel(ctx), u.r.db, u.row.ID, u.row.Version
	if !errors.Is(db.ReleaseUpload(ctx, id, version), meta.ErrUnavailable) {
		return
	}
	go func() {
		for end := time.Now().Add(leaseTTL); time.Now().Before(end); {
			time.Sleep(leaseAgain)
			if !errors.Is(db.ReleaseUpload(ctx, id, version), meta.ErrUnavailable) {
				return
			}
		}
	}()
}

func (u *upload) coded(err error) error {
	if errors.Is(err, errTooLarge) {
		err = &meta.QuotaError{Quota: meta.BlobSize, Limit: u.row.MaxBlob, Asked: u.row.MaxBlob + 1}
	}
	if errors.Is(err, meta.ErrLeased) {
		return &registry.Error{Code: registry.RangeInvalid, Repo: u.row.Repository,
			Detail: "another request is writing to this upload; ask for its status and go on from there", Err: err}
	}
	return coded(err, u.row.Repository, registry.UploadUnknown, map[string]string{"upload": u.row.ID})
}

// lease renews itself until it is stopped or lost. Its holder's own clock ends
// it too: a process that was frozen, or a database that is slow to answer, must
// not write where another may have taken over.
type lease struct {
	quit  chan struct{}
	until atomic.Pointer[time.Time]
}

// holdLease keeps the lease that was asked for at the given time.
func holdLease(db Metadata, row meta.Upload, asked time.Time) *lease {
	l := &lease{quit: make(chan struct{})}
	l.extend(asked)
	timer := time.NewTimer(leaseRenew)
	go func() {
		defer timer.Stop()
		for {
			select {
			case <-l.quit:
				return
			case <-timer.C:
			}
			asked := time.Now()
			err := db.RenewUpload(context.Background(), row.ID, row.Version, leaseTTL)
			switch {
			case err == nil:
				l.extend(asked)
			case errors.Is(err, meta.ErrLeased):
				l.until.Store(new(time.Time))
				return
			case errors.Is(err, meta.ErrUnavailable):
				timer.Reset(leaseAgain)
				continue
			}
			timer.Reset(leaseRenew)
		}
	}()
	return l
}

func (l *lease) extend(asked time.Time) { l.until.Store(new(asked.Add(leaseTTL))) }

// lost is why its holder must not go on; nil: it may. A lease that ran out while
// nobody could be asked may be another's or not: the client finds out by trying.
func (l *lease) lost() error {
	until := *l.until.Load()
	switch {
	case until.IsZero():
		return meta.ErrLeased
	case time.Now().After(until):
		return errLeaseOver
	}
	return nil
}

var errLeaseOver = fmt.Errorf("%w: the lease of the upload could not be renewed in time", meta.ErrUnavailable)

func (l *lease) stop() { close(l.quit) }

// errTooLarge: the blob will have more bytes than the project's plan allows.
var errTooLarge = errors.New("blob too large for the project's plan")

// hashingReader hashes what passes and stops when the lease is lost, or more
// comes than there is room for.
type hashingReader struct {
	r     io.Reader
	h     oci.Hash
	lease *lease
	room  int64 // bytes that may pass in all
	n     int64 // bytes that have passed
}

func (r *hashingReader) Read(p []byte) (int, error) {
	if err := r.lease.lost(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	if int64(n) > r.room-r.n {
		return 0, errTooLarge
	}
	r.h.Write(p[:n])
	r.n += int64(n)
	return n, err
}
