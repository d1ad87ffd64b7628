package credential

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const maxFile = 64 << 10 // bytes of a password or a token

// file is a secret in a file that is replaced from time to time. It is read
// again when the file looks changed, and when its content was refused.
type file struct {
	path string
	make func(secret string) Credential

	mu    sync.Mutex
	read  bool
	mtime time.Time
	size  int64
	found Credential
}

// PasswordFile is a user name and the password that is in a file.
func PasswordFile(user, path string) Source {
	return &file{path: path, make: func(secret string) Credential { return Credential{Username: user, Password: secret} }}
}

// TokenFile is a token in a file, which the registry itself takes.
func TokenFile(path string) Source {
	return &file{path: path, make: func(secret string) Credential { return Credential{Bearer: secret} }}
}

func (f *file) Credential(context.Context) (Credential, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		return Credential{}, err
	}
	if f.read && info.ModTime().Equal(f.mtime) && info.Size() == f.size {
		return f.found, nil
	}
	secret, err := readSecret(f.path)
	if err != nil {
		return Credential{}, err
	}
	f.read, f.mtime, f.size, f.found = true, info.ModTime(), info.Size(), f.make(secret)
	return f.found, nil
}

// Drop has the file read again: it may have changed within one tick of its clock.
func (f *file) Drop(refused Credential) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.found == refused {
		f.read = false
	}
}

// readSecret returns what is in a file, without the end of its line.
func readSecret(path string) (string, error) {
	r, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer r.Close()
	content, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(content), "\r\n")
	switch {
	case len(content) > maxFile:
		return "", fmt.Errorf("%s has more than %d bytes", path, maxFile)
	case secret == "":
		return "", fmt.Errorf("%s is empty", path)
	case strings.ContainsAny(secret, "\r\n\x00"):
		return "", fmt.Errorf("%s has several lines, or bytes that no password has", path)
	}
	return secret, nil
}
