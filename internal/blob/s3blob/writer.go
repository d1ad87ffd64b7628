package s3blob

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/berth-registry/berth/internal/blob"
)

const (
	maxParts   = 10_000
	growEvery  = 950 // parts, after which their size doubles: 10 000 from 5 MiB make 7 TiB
	largest    = 5 << 30
	underWay   = 4         // parts of one upload at once, if its memory allows
	smallTail  = 256 << 10 // bytes that may stand in a state always
	tailByRead = 4         // a larger one must not be more than this times what an Append brought
)

// partSize is that of the i-th part, from 0.
func (s *Store) partSize(i int) int64 {
	if s.o.EqualParts {
		return s.o.PartSize
	}
	return min(s.o.PartSize<<(i/growEvery), largest)
}

// Create asks the service for nothing: most objects need no multipart upload.
func (s *Store) Create(_ context.Context, key string) (blob.State, error) {
	return blob.State{}, blob.CheckKey(key)
}

// Append implements blob.Store. All that r gives counts, also after ctx is
// done: a client that breaks off wants to go on later. Errors, besides:
// blob.ErrNotFound if the service has lost what s says.
func (s *Store) Append(ctx context.Context, key string, st blob.State, r io.Reader) (blob.State, error) {
	if err := blob.CheckKey(key); err != nil {
		return st, err
	}
	p, err := parse(key, st)
	if err != nil {
		return st, err
	}
	ctx = context.WithoutCancel(ctx)
	b := s.newBudget()
	first, err := b.newPart(s.least)
	if err != nil {
		return st, err
	}
	defer first.release()
	ended, err := first.fill(r, s.least-p.pending())
	switch {
	case err != nil:
		return st, err
	case first.size == 0 && ended != nil:
		return st, atEnd(ended)
	case ended != nil && p.pending()+first.size < s.least:
		p, err = s.keep(ctx, key, p, first)
	default:
		w := &writer{s: s, ctx: ctx, key: key, p: p, b: b, slots: make(chan struct{}, underWay)}
		p, ended, err = w.run(first, ended, r)
	}
	if err != nil {
		return st, failure(err)
	}
	next, err := p.state()
	if err != nil {
		return st, err
	}
	return next, atEnd(ended)
}

func atEnd(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// keep holds what is too small for a part in the state. Where many small
// Appends would rewrite a large state again and again, it goes to an object.
func (s *Store) keep(ctx context.Context, key string, p progress, add *part) (progress, error) {
	data, err := add.bytes()
	if err != nil {
		return p, err
	}
	p.Tail = slices.Concat(p.Tail, data)
	if len(p.Tail) <= smallTail || int64(len(p.Tail)) <= tailByRead*add.size {
		return p, nil
	}
	whole, err := s.gather(ctx, key, progress{Tail: p.Tail}, add.b)
	if err != nil {
		return p, err
	}
	defer whole.release()
	name := rand.Text()
	if err := s.put(ctx, s.tail(key, name), whole, nil); err != nil {
		return p, err
	}
	p.Spills = append(slices.Clone(p.Spills), piece{Size: whole.size, Name: name})
	p.Tail = nil
	return p, nil
}

// gather brings what is pending into one buffer.
func (s *Store) gather(ctx context.Context, key string, p progress, b *budget) (*part, error) {
	into, err := b.newPart(s.least)
	if err != nil {
		return nil, err
	}
	for _, spill := range p.Spills {
		name := s.tail(key, spill.Name)
		rc, err := s.read(ctx, &name, 0, spill.Size)
		if err == nil {
			err = fillExactly(into, rc, spill.Size)
			rc.Close()
		}
		if err != nil {
			into.release()
			return nil, err
		}
	}
	if err := fillExactly(into, bytes.NewReader(p.Tail), int64(len(p.Tail))); err != nil {
		into.release()
		return nil, err
	}
	return into, nil
}

func fillExactly(into *part, r io.Reader, n int64) error {
	size := into.size + n
	ended, err := into.fill(r, size)
	if err == nil && into.size < size {
		err = ended
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
	}
	return err
}

// writer turns a stream into parts of a multipart upload, several at a time. A
// full part waits in held until S3's least size has come behind it, so that a
// stream never ends with a rest that is too small for a part of its own.
type writer struct {
	s     *Store
	ctx   context.Context
	key   string
	p     progress
	b     *budget
	slots chan struct{}
	held  *part

	sends sync.WaitGroup
	mu    sync.Mutex
	err   error // the first of any part
}

// run sends what is pending, first, and r behind it. ended is r's error, if it
// has been met with first.
func (w *writer) run(first *part, ended error, r io.Reader) (progress, error, error) {
	cur, err := w.begin(first)
	for err == nil && ended == nil && w.failed() == nil {
		cur, ended, err = w.step(cur, r)
	}
	if err == nil && w.failed() == nil {
		err = w.finish(cur)
	} else {
		cur.release()
	}
	w.sends.Wait()
	if w.held != nil {
		w.held.release()
	}
	return w.p, ended, errors.Join(err, w.failed())
}

// begin opens the multipart upload, where there is none, and puts what is
// pending before first.
func (w *writer) begin(first *part) (*part, error) {
	p := w.p
	w.p.Parts = slices.Clone(p.Parts)
	if p.Upload == "" {
		id, err := w.s.createMultipart(w.ctx, w.key)
		if err != nil {
			return first, err
		}
		w.p.Upload = id
	}
	if len(p.Spent) > 0 && w.s.deleteSpills(w.ctx, w.key, p.Spent) == nil {
		w.p.Spent = nil
	}
	w.p.Spills, w.p.Tail = nil, nil
	w.p.Spent = slices.Concat(w.p.Spent, p.Spills)
	cur, err := w.b.newPart(w.size())
	if err != nil {
		return first, err
	}
	if p.pending() > 0 {
		before, err := w.s.gather(w.ctx, w.key, p, w.b)
		if err != nil {
			return cur, err
		}
		if err := cur.absorb(before); err != nil {
			return cur, err
		}
	}
	return cur, cur.absorb(first)
}

// size is that of the part that is being filled.
func (w *writer) size() int64 {
	i := len(w.p.Parts)
	if w.held != nil {
		i++
	}
	return w.s.partSize(i)
}

// step fills cur until it is full, or until the held part can go.
func (w *writer) step(cur *part, r io.Reader) (next *part, ended, failed error) {
	if w.held != nil {
		ended, failed = cur.fill(r, w.s.least)
		if failed == nil && cur.size >= w.s.least {
			failed = w.send(w.held)
			w.held = nil
		}
		return cur, ended, failed
	}
	ended, failed = cur.fill(r, w.size())
	if failed != nil || ended != nil {
		return cur, ended, failed
	}
	if w.s.o.EqualParts {
		failed = w.send(cur)
	} else {
		w.held = cur
	}
	next, err := w.b.newPart(w.size())
	if err != nil {
		return &part{b: w.b}, nil, err
	}
	return next, nil, failed
}

// finish sends the last bytes, or keeps them where they must not be a part. It
// releases cur.
func (w *writer) finish(cur *part) error {
	switch {
	case w.held != nil && cur.size < w.s.least:
		held := w.held
		w.held = nil
		if err := held.absorb(cur); err != nil {
			held.release()
			return err
		}
		return w.send(held)
	case cur.size < w.s.least:
		defer cur.release()
		tail, err := cur.bytes()
		w.p.Tail = tail
		return err
	}
	return w.send(cur)
}

// send uploads a part in the background and releases it.
func (w *writer) send(p *part) error {
	i := len(w.p.Parts)
	if i == maxParts {
		p.release()
		return fmt.Errorf("upload %s has %d parts, the most that S3 takes: it is too large for parts of %d bytes", w.key, i, w.s.o.PartSize)
	}
	w.mu.Lock()
	w.p.Parts = append(w.p.Parts, piece{Size: p.size})
	w.mu.Unlock()
	w.slots <- struct{}{}
	w.b.fly(1)
	w.sends.Go(func() {
		defer func() { p.release(); w.b.fly(-1); <-w.slots }()
		etag, crc, err := w.s.uploadPart(w.ctx, w.key, w.p.Upload, i+1, p)
		w.mu.Lock()
		defer w.mu.Unlock()
		if err != nil {
			w.err = errors.Join(w.err, err)
			return
		}
		w.p.Parts[i].Name, w.p.Parts[i].CRC32 = etag, crc
	})
	return nil
}

func (w *writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (s *Store) createMultipart(ctx context.Context, key string) (string, error) {
	in := &s3.CreateMultipartUploadInput{
		Bucket: &s.o.Bucket, Key: s.name(key), ContentType: new(contentType),
		ServerSideEncryption: types.ServerSideEncryption(s.o.Encryption), SSEKMSKeyId: orNil(s.o.KMSKey),
		StorageClass: types.StorageClass(s.o.StorageClass),
	}
	if s.o.Checksum == CRC32 {
		in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32
	}
	out, err := s.client.CreateMultipartUpload(ctx, in)
	if err != nil {
		return "", err
	}
	if out.UploadId == nil {
		return "", errors.New("S3 began a multipart upload without an id")
	}
	return *out.UploadId, nil
}

func (s *Store) uploadPart(ctx context.Context, key, upload string, number int, p *part) (etag, crc string, err error) {
	md5Sum, crcSum, err := p.checksum(s.o.Checksum)
	if err != nil {
		return "", "", err
	}
	out, err := s.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &s.o.Bucket, Key: s.name(key), UploadId: &upload, PartNumber: new(int32(number)),
		Body: p.body(), ContentLength: &p.size, ContentMD5: md5Sum, ChecksumCRC32: crcSum,
	})
	if err != nil {
		return "", "", err
	}
	if out.ETag == nil {
		return "", "", errors.New("S3 took a part without telling its ETag")
	}
	if crcSum != nil {
		crc = *crcSum
	}
	return *out.ETag, crc, nil
}

// put writes a whole object.
func (s *Store) put(ctx context.Context, name string, p *part, ifNoneMatch *string) error {
	md5Sum, crc, err := p.checksum(s.o.Checksum)
	if err != nil {
		return err
	}
	_, err = s.client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &s.o.Bucket, Key: &name, Body: p.body(), ContentLength: &p.size, ContentMD5: md5Sum, ChecksumCRC32: crc,
		ContentType: new(contentType), IfNoneMatch: ifNoneMatch,
		ServerSideEncryption: types.ServerSideEncryption(s.o.Encryption), SSEKMSKeyId: orNil(s.o.KMSKey),
		StorageClass: types.StorageClass(s.o.StorageClass),
	})
	return err
}

const contentType = "application/octet-stream"

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
