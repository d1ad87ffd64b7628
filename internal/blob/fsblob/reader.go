package fsblob

import (
	"context"
	"io"
	"os"

	"github.com/berth-registry/berth/internal/blob"
)

// Open reads part of an object straight from its file.
func (s *Store) Open(_ context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := blob.CheckKey(key); err != nil {
		return nil, err
	}
	_, path := s.path(key)
	f, err := os.Open(path)
	if err != nil {
		return nil, failure(err)
	}
	if off > 0 {
		if _, err := f.Seek(off, io.SeekStart); err != nil {
			f.Close()
			return nil, err
		}
	}
	return &section{io.LimitedReader{R: f, N: n}, f}, nil
}

// section is a part of a file. It hands the file itself to a destination that
// reads by its own means, which for a network connection is sendfile.
type section struct {
	part io.LimitedReader
	file *os.File
}

func (s *section) Read(p []byte) (int, error)               { return s.part.Read(p) }
func (s *section) WriteTo(w io.Writer) (n int64, err error) { return io.Copy(w, &s.part) }
func (s *section) Close() error                             { return s.file.Close() }
