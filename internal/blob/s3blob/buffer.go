package s3blob

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

const (
	chunkSize = 256 << 10
	minMemory = 2*MinPart + slack // a part and what may be added to it
	slack     = 4 * chunkSize     // chunks that are not full, of joined parts
	maxEmpty  = 100               // reads without a byte or an error
)

// memory is what all uploads of a store may have in chunks, together.
type memory struct {
	mu   sync.Mutex
	left int64
}

func (m *memory) take() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left < chunkSize {
		return false
	}
	m.left -= chunkSize
	return true
}

func (m *memory) give() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left += chunkSize
}

// budget lends an upload its share of the memory, in chunks.
type budget struct {
	s      *Store
	mu     sync.Mutex
	change sync.Cond // of what is free, or flying
	free   int64     // bytes of the upload's share
	flying int       // parts that are being sent
}

func (s *Store) newBudget() *budget {
	b := &budget{s: s, free: s.o.Memory}
	b.change.L = &b.mu
	return b
}

// take waits for a chunk while parts are under way that will give theirs back.
// Where none is, it returns nil: what is to be buffered must go to a file.
func (b *budget) take() *[chunkSize]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if b.free >= chunkSize && b.s.memory.take() {
			b.free -= chunkSize
			return b.s.chunks.Get().(*[chunkSize]byte)
		}
		if b.flying == 0 {
			return nil
		}
		b.change.Wait()
	}
}

func (b *budget) give(c *[chunkSize]byte) {
	b.s.chunks.Put(c)
	b.s.memory.give()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += chunkSize
	b.change.Broadcast()
}

// fly counts a part that is under way, or no more.
func (b *budget) fly(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flying += n
	b.change.Broadcast()
}

// part is a buffer of bytes, in memory or in a file that has no name any more.
type part struct {
	b      *budget
	size   int64
	crc    uint32
	chunks []*[chunkSize]byte
	used   []int // bytes in each chunk
	file   *os.File
}

// newPart makes a buffer for size bytes and as many as may be added to it.
func (b *budget) newPart(size int64) (*part, error) {
	p := &part{b: b}
	if size+MinPart+slack <= b.s.o.Memory {
		return p, nil
	}
	return p, p.toFile()
}

// toFile moves a part out of memory.
func (p *part) toFile() error {
	f, err := os.CreateTemp(p.b.s.o.Scratch, "berth-part-*")
	if err != nil {
		return scratchFailure(err)
	}
	if err := errors.Join(os.Remove(f.Name()), copyAll(f, p.body())); err != nil {
		f.Close()
		return scratchFailure(err)
	}
	p.release()
	p.file = f
	return nil
}

func copyAll(w io.Writer, r io.Reader) error {
	_, err := io.Copy(w, r)
	return err
}

// fill reads r until the part has size bytes. Its error is r's, which counts as
// the end, or one of the file, which does not.
func (p *part) fill(r io.Reader, size int64) (ended, failed error) {
	empty := 0
	for p.size < size && empty < maxEmpty {
		n, err := 0, error(nil)
		if p.file != nil {
			n, err, failed = p.fillFile(r, size-p.size)
		} else {
			n, err, failed = p.fillMemory(r, size-p.size)
		}
		p.size += int64(n)
		if err != nil || failed != nil {
			return err, failed
		}
		empty++
		if n > 0 {
			empty = 0
		}
	}
	if empty == maxEmpty {
		return io.ErrNoProgress, nil
	}
	return nil, nil
}

func (p *part) fillMemory(r io.Reader, room int64) (n int, ended, failed error) {
	last := len(p.chunks) - 1
	if last < 0 || p.used[last] == chunkSize {
		c := p.b.take()
		if c == nil {
			return 0, nil, p.toFile()
		}
		p.chunks, p.used = append(p.chunks, c), append(p.used, 0)
		last++
	}
	free := p.chunks[last][p.used[last]:]
	n, ended = r.Read(free[:min(room, int64(len(free)))])
	p.crc = crc32.Update(p.crc, crc32.IEEETable, free[:n])
	p.used[last] += n
	return n, ended, nil
}

func (p *part) fillFile(r io.Reader, room int64) (n int, ended, failed error) {
	c := p.b.s.chunks.Get().(*[chunkSize]byte) // beside the budget, for the time of a read
	defer p.b.s.chunks.Put(c)
	n, ended = r.Read(c[:min(room, chunkSize)])
	p.crc = crc32.Update(p.crc, crc32.IEEETable, c[:n])
	_, err := p.file.WriteAt(c[:n], p.size)
	return n, ended, scratchFailure(err)
}

// absorb adds the bytes of another part, which must not be used any more.
func (p *part) absorb(q *part) error {
	if p.file == nil && q.file == nil {
		for i, c := range q.chunks {
			p.crc = crc32.Update(p.crc, crc32.IEEETable, c[:q.used[i]])
		}
		p.chunks, p.used = append(p.chunks, q.chunks...), append(p.used, q.used...)
		p.size += q.size
		q.chunks, q.used = nil, nil
		return nil
	}
	ended, failed := p.fill(q.body(), p.size+q.size)
	q.release()
	if failed == nil && ended != io.EOF {
		failed = ended
	}
	return failed
}

// release gives the memory or the file back; doing so again is no error.
func (p *part) release() {
	for _, c := range p.chunks {
		p.b.give(c)
	}
	p.chunks, p.used = nil, nil
	if p.file != nil {
		p.file.Close()
		p.file = nil
	}
}

// body reads the part, as often as the SDK wants.
func (p *part) body() io.ReadSeeker {
	if p.file != nil {
		return io.NewSectionReader(p.file, 0, p.size)
	}
	return io.NewSectionReader(chunkReader{p}, 0, p.size)
}

// bytes copies a part that is small.
func (p *part) bytes() ([]byte, error) {
	data := make([]byte, p.size)
	_, err := io.ReadFull(p.body(), data)
	return data, err
}

// checksum is the Content-MD5 or the CRC-32 of the part, as S3 writes them.
func (p *part) checksum(c Checksum) (md5Sum, crc *string, err error) {
	switch c {
	case MD5:
		h := md5.New()
		if _, err := io.Copy(h, p.body()); err != nil {
			return nil, nil, err
		}
		return new(base64.StdEncoding.EncodeToString(h.Sum(nil))), nil, nil
	case CRC32:
		return nil, new(base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, p.crc))), nil
	}
	return nil, nil, nil
}

// chunkReader finds bytes in chunks, of which any may be partly used.
type chunkReader struct{ p *part }

func (r chunkReader) ReadAt(b []byte, off int64) (n int, err error) {
	for i, c := range r.p.chunks {
		used := int64(r.p.used[i])
		if off >= used {
			off -= used
			continue
		}
		m := copy(b[n:], c[off:used])
		n, off = n+m, 0
		if n == len(b) {
			return n, nil
		}
	}
	return n, io.EOF
}
