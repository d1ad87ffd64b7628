package fsblob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/berth-registry/berth/internal/blob"
	"github.com/berth-registry/berth/internal/disk"
)

// bufferSize is what one transfer holds in memory. More leaves the fast caches
// between being received, hashed and written, and is measurably slower.
const bufferSize = 32 << 10

// startEvery is how many bytes come together before the disk is told to write
// them: a large object is then nearly on the disk when its last byte comes.
const startEvery = 8 << 20

// Create begins an object; its file appears with the first bytes.
func (s *Store) Create(_ context.Context, key string) (blob.State, error) {
	return blob.State{}, blob.CheckKey(key)
}

// Append writes r to the object's file, then syncs the file and, if it is new,
// the name of it.
func (s *Store) Append(ctx context.Context, key string, st blob.State, r io.Reader) (blob.State, error) {
	if err := blob.CheckKey(key); err != nil {
		return st, err
	}
	dir, path := s.path(key)
	f, err := s.openForWriting(dir, path, st.Size)
	if err != nil {
		return st, err
	}
	defer f.Close()
	n, readErr, err := s.copyFrom(ctx, f, st.Size, r)
	if err == nil {
		err = s.persist(f, dir, st.Size == 0)
	}
	if err != nil {
		f.Truncate(st.Size) // best effort: frees the space; Seal cuts too
		return st, failure(err)
	}
	return blob.State{Size: st.Size + n}, readErr
}

// persist makes a file's bytes durable and, if it is new, its name; the two
// syncs wait for the disk together.
func (s *Store) persist(f *os.File, dir string, isNew bool) error {
	if !isNew {
		return disk.SyncData(f)
	}
	named := make(chan error, 1)
	go func() { named <- s.dirs.sync(dir) }()
	return errors.Join(disk.SyncData(f), <-named)
}

// openForWriting opens an object's file at size. What a failed Append may have
// left behind it stays for Seal to cut: whoever opens a file too late, for it was
// frozen meanwhile, must not shorten what another has sealed.
func (s *Store) openForWriting(dir, path string, size int64) (*os.File, error) {
	if size == 0 {
		f, err := s.create(dir, path)
		return f, failure(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, failure(err)
	}
	if _, err := reaches(f, size); err != nil {
		f.Close()
		return nil, err
	}
	if _, err := f.Seek(size, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// create makes a file in a subfolder, or opens it. A subfolder that was known and has
// gone, for somebody tidied up, is made again.
func (s *Store) create(dir, path string) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_CREATE
	if err := s.shard(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, flags, 0o640)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	s.mu.Lock()
	delete(s.shards, dir)
	s.mu.Unlock()
	if err := s.shard(dir); err != nil {
		return nil, err
	}
	return os.OpenFile(path, flags, 0o640)
}

// reaches wants a file to have size bytes and says whether it has more.
func reaches(f *os.File, size int64) (more bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if info.Size() < size {
		return false, fmt.Errorf("%s has %d bytes, fewer than the %d that were stored: run `berth check`", f.Name(), info.Size(), size)
	}
	return info.Size() > size, nil
}

// copyFrom is io.Copy that tells a failing source from a failing file. It
// fills its buffer before it writes: a network brings a few kilobytes at a time.
func (s *Store) copyFrom(ctx context.Context, f *os.File, off int64, r io.Reader) (n int64, readErr, err error) {
	buf := s.buffers.Get().(*[bufferSize]byte)
	defer s.buffers.Put(buf)
	started := int64(0) // what the disk was told to write already
	for readErr == nil {
		var m int
		m, readErr = fill(r, buf[:])
		if readErr == nil {
			readErr = ctx.Err()
		}
		written, err := f.Write(buf[:m])
		n += int64(written)
		if err != nil {
			return n, readErr, err
		}
		if n-started >= startEvery {
			disk.StartWriting(f, off+started, n-started)
			started = n
		}
	}
	if readErr == io.EOF {
		readErr = nil
	}
	return n, readErr, nil
}

// fill reads until buf is full or r fails, and keeps r's own error: to io.ReadFull
// the end of a stream and an upload that broke off look the same.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// Seal checks that the file holds exactly the object. Its bytes have been
// synced by the Append that brought them; only an empty object is new here, and
// what a failed Append left behind the last byte must not come back.
func (s *Store) Seal(ctx context.Context, key string, st blob.State) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	if st.Size == 0 {
		if _, err := s.Append(ctx, key, st, eof{}); err != nil {
			return err
		}
	}
	_, path := s.path(key)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return failure(err)
	}
	defer f.Close()
	more, err := reaches(f, st.Size)
	if err == nil && more {
		err = errors.Join(f.Truncate(st.Size), disk.SyncData(f))
	}
	return failure(err)
}

// Abort deletes the object's file.
func (s *Store) Abort(ctx context.Context, key string, _ blob.State) error {
	return s.Delete(ctx, key)
}

// Delete unlinks files. The folder is not synced: what reappears after a loss
// of power is an orphan that costs space and nothing else.
func (s *Store) Delete(_ context.Context, keys ...string) error {
	for _, key := range keys {
		if err := blob.CheckKey(key); err != nil {
			return err
		}
		_, path := s.path(key)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
