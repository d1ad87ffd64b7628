package fsblob

import (
	"context"
	"fmt"
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
// reads by its own means, which for a network connection is sendfile. A file
// that ends too early is an error, not the end.
type section struct {
	part io.LimitedReader
	file *os.File
}

func (s *section) Read(p []byte) (int, error) {
	n, err := s.part.Read(p)
	if err == io.EOF {
		err = s.short(s.part.N, io.EOF)
	}
	return n, err
}

// WriteTo serves io.Copy.
func (s *section) WriteTo(w io.Writer) (int64, error) {
	want := s.part.N
	n, err := io.Copy(w, &s.part)
	if err == nil {
		err = s.short(want-n, nil)
	}
	return n, err
}

// short is the error of a file that lacks bytes, or else end.
func (s *section) short(missing int64, end error) error {
	if missing > 0 {
		return fmt.Errorf("%s ends %d bytes too early: %w", s.file.Name(), missing, io.ErrUnexpectedEOF)
	}
	return end
}

func (s *section) Close() error { return s.file.Close() }
