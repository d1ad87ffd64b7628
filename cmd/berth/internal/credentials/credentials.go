// Package credentials keeps what `berth login` got: one key a server, in a file
// that nobody else may read or with a credential helper of docker.
package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrNotFound: nobody logged in to that server.
var ErrNotFound = errors.New("not logged in")

// Credential is what to send to a server.
type Credential struct {
	User   string `json:"user"`
	KeyID  string `json:"key_id,omitempty"` // where log-in made the key, and log-out revokes it
	Secret string `json:"secret,omitempty"` // "" in the file where a helper keeps it
}

// document is what the file holds.
type document struct {
	// Helper is NAME of docker-credential-NAME, which then keeps the secrets.
	Helper string `json:"credential_helper,omitempty"`
	// Server is where commands go that name none: that of the latest log-in.
	Server  string                `json:"server,omitempty"`
	Servers map[string]Credential `json:"servers,omitempty"` // by URL
}

// Store is the file of one person. It is not for concurrent use.
type Store struct{ path string }

// Open finds the file by the environment: $XDG_CONFIG_HOME, else ~/.config,
// below which it is berth/credentials.json. It need not exist.
func Open(getenv func(string) string) (*Store, error) {
	dir := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // as its specification has it, any other is to be ignored
		home := getenv("HOME")
		if home == "" {
			return nil, errors.New("there is no place for credentials: set HOME or XDG_CONFIG_HOME, or give BERTH_SERVER and BERTH_KEY")
		}
		dir = filepath.Join(home, ".config")
	}
	return &Store{filepath.Join(dir, "berth", "credentials.json")}, nil
}

// Path of the file.
func (s *Store) Path() string { return s.path }

// Server is where the latest log-in went. Errors: ErrNotFound.
func (s *Store) Server() (string, error) {
	doc, err := s.read()
	if err == nil && doc.Server == "" {
		err = ErrNotFound
	}
	return doc.Server, err
}

// Get finds the credential for a server. Errors: ErrNotFound.
func (s *Store) Get(ctx context.Context, server string) (Credential, error) {
	doc, err := s.read()
	if err != nil {
		return Credential{}, err
	}
	c, known := doc.Servers[server]
	if !known {
		return c, ErrNotFound
	}
	if c.Secret == "" && doc.Helper != "" {
		c.Secret, err = helper(doc.Helper).get(ctx, server)
	}
	return c, err
}

// Put keeps the credential for a server, which becomes that of commands that
// name none.
func (s *Store) Put(ctx context.Context, server string, c Credential) error {
	doc, err := s.read()
	if err != nil {
		return err
	}
	if doc.Helper != "" {
		if err := helper(doc.Helper).store(ctx, server, c); err != nil {
			return err
		}
		c.Secret = ""
	}
	if doc.Servers == nil {
		doc.Servers = map[string]Credential{}
	}
	doc.Server, doc.Servers[server] = server, c
	return s.write(doc)
}

// Delete forgets the credential for a server. Errors: ErrNotFound.
func (s *Store) Delete(ctx context.Context, server string) error {
	doc, err := s.read()
	if err != nil {
		return err
	}
	c, known := doc.Servers[server]
	if !known {
		return ErrNotFound
	}
	if c.Secret == "" && doc.Helper != "" {
		if err := helper(doc.Helper).erase(ctx, server); err != nil {
			return err
		}
	}
	delete(doc.Servers, server)
	if doc.Server == server {
		doc.Server = ""
	}
	return s.write(doc)
}

func (s *Store) read() (doc document, err error) {
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return doc, nil
	}
	if err != nil {
		return doc, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return doc, fmt.Errorf("%s can be read by others: run chmod 600 on it, and revoke the keys if somebody did", s.path)
	}
	text, err := os.ReadFile(s.path)
	if err != nil {
		return doc, err
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return doc, fmt.Errorf("%s is damaged: mend or delete it, then log in again: %w", s.path, err)
	}
	return doc, nil
}

// write replaces the file as a whole: it is never half there, and never one
// that others may read.
func (s *Store) write(doc document) error {
	text, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(s.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".credentials-*") // of mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), s.path)
}
