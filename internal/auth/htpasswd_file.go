package auth

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"
)

const (
	maxHtpasswd = 16 << 20 // bytes of a file
	maxUser     = 255      // bytes of a name
	maxCost     = 15       // of bcrypt: seconds of work for each wrong password
	decoyCost   = 10       // of bcrypt, where there is no user to take it from
)

// bcryptHash matches the hashes of htpasswd -B and of other bcrypt programs.
var bcryptHash = regexp.MustCompile(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

// readHtpasswd reads the file at path. The version is that of what was read; it
// is nil where the file could not be opened.
func readHtpasswd(path string) (*users, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	version, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if version.Size() > maxHtpasswd {
		return nil, version, fmt.Errorf("%s is larger than %d bytes; is it the right file?", path, maxHtpasswd)
	}
	u, err := parseHtpasswd(io.LimitReader(f, maxHtpasswd))
	if err != nil {
		return nil, version, fmt.Errorf("%s%w", path, err)
	}
	return u, version, nil
}

// parseHtpasswd reads users and hashes. Its error begins with the line's number,
// and never holds more of the line than the user's name: the rest is a secret.
func parseHtpasswd(r io.Reader) (*users, error) {
	u := &users{
		hashes:     map[string][]byte{},
		decoy:      fmt.Appendf(nil, "$2b$%02d$%s", decoyCost, strings.Repeat(".", 53)),
		remembered: map[[sha256.Size]byte]struct{}{},
	}
	costliest := 0
	lines := bufio.NewScanner(r)
	number := 0
	for lines.Scan() {
		number++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		name, hash, err := parseUser(string(line))
		if err != nil {
			return nil, fmt.Errorf(":%d: %w", number, err)
		}
		if u.hashes[name] != nil {
			return nil, fmt.Errorf(":%d: user %q is in the file twice; remove one", number, name)
		}
		u.hashes[name] = hash
		if cost, _ := bcrypt.Cost(hash); cost > costliest {
			costliest, u.decoy = cost, hash
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf(":%d: %w", number+1, err)
	}
	return u, nil
}

// parseUser reads one line.
func parseUser(line string) (name string, hash []byte, err error) {
	name, rest, ok := strings.Cut(line, ":")
	if !ok {
		return "", nil, errors.New("must be USER:HASH; make the line with: htpasswd -nbB USER PASSWORD")
	}
	if err := checkUser(name); err != nil {
		return "", nil, fmt.Errorf("user name: %w", err)
	}
	if !bcryptHash.MatchString(rest) {
		return "", nil, fmt.Errorf("user %q has %s; only bcrypt is accepted, make the line with: htpasswd -nbB USER PASSWORD", name, hashKind(rest))
	}
	cost, err := bcrypt.Cost([]byte(rest))
	if err != nil || cost < bcrypt.MinCost || cost > maxCost {
		return "", nil, fmt.Errorf("user %q has a bcrypt cost that is not from %d to %d; make the line with: htpasswd -nbB -C 10 USER PASSWORD", name, bcrypt.MinCost, maxCost)
	}
	return name, []byte(rest), nil
}

// hashKind names a hash that is not accepted, so that its owner knows it.
func hashKind(hash string) string {
	for _, k := range []struct{ prefix, name string }{
		{"$apr1$", "an MD5 (apr1) hash"},
		{"{SHA}", "a SHA-1 hash"},
		{"$5$", "a SHA-256 (crypt) hash"},
		{"$6$", "a SHA-512 (crypt) hash"},
		{"$argon2", "an Argon2 hash"},
		{"$y$", "a yescrypt hash"},
		{"$2", "a damaged bcrypt hash"},
	} {
		if strings.HasPrefix(hash, k.prefix) {
			return k.name
		}
	}
	return "no bcrypt hash"
}

// checkUser says what is wrong with a user's name.
func checkUser(name string) error {
	switch {
	case name == "":
		return errors.New("must not be empty")
	case len(name) > maxUser:
		return fmt.Errorf("must have at most %d bytes", maxUser)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r == ':' || unicode.IsControl(r) }):
		return errors.New("must be UTF-8 without colons and control characters")
	}
	return nil
}
