package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// limitServer answers the requests of the loads with the least work that
// durable, verified storage allows: a push is hashed while it is written, then
// synced, renamed into place, and its folder synced; a pull is a file. No
// database, no links between repositories and blobs, no manifest is read, no
// upload session is kept: what a registry adds to this is its own cost.
type limitServer struct {
	root    string
	buffers sync.Pool
}

func newLimitServer(root string) (*limitServer, error) {
	for _, dir := range []string{"tmp", "blobs", "manifests"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return nil, err
		}
	}
	s := &limitServer{root: root}
	s.buffers.New = func() any { b := make([]byte, 32<<10); return &b }
	return s, nil
}

// serveLimit runs the server until ctx ends.
func serveLimit(ctx context.Context, addr, data string) error {
	if data == "" {
		return errors.New("-limit-server needs -data FOLDER")
	}
	s, err := newLimitServer(data)
	if err != nil {
		return err
	}
	srv := &http.Server{Addr: addr, Handler: s}
	context.AfterFunc(ctx, func() {
		stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		srv.Shutdown(stop)
	})
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *limitServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok {
		http.NotFound(w, r)
		return
	}
	if path == "" {
		return // 200: ready
	}
	if repo, _, ok := strings.Cut(path, "/blobs/uploads/"); ok {
		s.upload(w, r, repo)
	} else if _, digest, ok := strings.Cut(path, "/blobs/"); ok {
		s.serveFile(w, r, filepath.Join("blobs", fileName(digest)), "application/octet-stream")
	} else if repo, ref, ok := strings.Cut(path, "/manifests/"); ok {
		s.manifest(w, r, filepath.Join("manifests", fileName(repo)), ref)
	} else {
		http.NotFound(w, r)
	}
}

// fileName makes one path element of a name, which cannot leave its folder.
func fileName(name string) string { return "=" + url.PathEscape(name) }

func (s *limitServer) upload(w http.ResponseWriter, r *http.Request, repo string) {
	switch r.Method {
	case http.MethodPost:
		w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+rand.Text())
		w.WriteHeader(http.StatusAccepted)
	case http.MethodPut:
		digest := r.URL.Query().Get("digest")
		err := s.store(r.Body, digest, "blobs")
		s.stored(w, digest, err)
	default:
		http.Error(w, "POST or PUT", http.StatusMethodNotAllowed)
	}
}

func (s *limitServer) manifest(w http.ResponseWriter, r *http.Request, dir, ref string) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		s.serveFile(w, r, filepath.Join(dir, fileName(ref)), manifestType)
	case http.MethodPut:
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o755); err != nil {
			s.stored(w, "", err)
			return
		}
		err := s.store(r.Body, "", dir, append(r.URL.Query()["tag"], ref)...)
		s.stored(w, ref, err)
	default:
		http.Error(w, "GET, HEAD or PUT", http.StatusMethodNotAllowed)
	}
}

var errDigest = errors.New("content does not have the digest")

func (s *limitServer) stored(w http.ResponseWriter, digest string, err error) {
	switch {
	case err == nil:
		w.Header().Set("Docker-Content-Digest", digest)
		w.WriteHeader(http.StatusCreated)
	case errors.Is(err, errDigest):
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// store writes content into dir under its digest, which must be the given one
// unless that is "", and under the other names. All is durable when it returns.
func (s *limitServer) store(content io.Reader, digest, dir string, names ...string) error {
	tmp := filepath.Join(s.root, "tmp", rand.Text())
	defer os.Remove(tmp) // after a success there is nothing left to remove
	got, err := s.write(tmp, content)
	if err != nil {
		return err
	}
	if digest != "" && got != digest {
		return fmt.Errorf("%w %s: it is %s", errDigest, digest, got)
	}
	dir = filepath.Join(s.root, dir)
	for _, name := range names {
		if name == got {
			continue
		}
		link := filepath.Join(s.root, "tmp", rand.Text())
		if err := os.Link(tmp, link); err != nil {
			return err
		}
		if err := os.Rename(link, filepath.Join(dir, fileName(name))); err != nil {
			return err
		}
	}
	if err := os.Rename(tmp, filepath.Join(dir, fileName(got))); err != nil {
		return err
	}
	return syncDir(dir)
}

// write makes a synced file of content and returns its digest.
func (s *limitServer) write(name string, content io.Reader) (digest string, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()

	buf := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buf)
	h := sha256.New()
	if _, err := io.CopyBuffer(io.MultiWriter(h, f), content, *buf); err != nil {
		return "", err
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *limitServer) serveFile(w http.ResponseWriter, r *http.Request, name, contentType string) {
	f, err := os.Open(filepath.Join(s.root, name))
	if errors.Is(err, fs.ErrNotExist) {
		http.NotFound(w, r)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", contentType)
	http.ServeContent(w, r, "", time.Time{}, f)
}
