// Package credential is how Berth proves who it is to a registry that it stands
// before: where its credentials come from (Source), and how a registry wants to
// be shown them (Authorizer). What a registry says about where to send them is
// input like any other: nothing goes to a host that was not meant.
package credential

import (
	"context"
	"encoding/base64"
	"time"
)

// Credential is who Berth is for another registry. The zero value is nobody.
type Credential struct {
	Username, Password string
	// Bearer is sent to the registry as it is, without a token service.
	Bearer string
	// Identity is a refresh token, for which a token service gives others.
	Identity string
	// Expires is when the credential ends; zero: not known.
	Expires time.Time
}

// Anonymous reports whether there is nothing to show.
func (c Credential) Anonymous() bool {
	return c.Username == "" && c.Password == "" && c.Bearer == "" && c.Identity == ""
}

// basic is the value of an Authorization header, "" where there is no password.
func (c Credential) basic() string {
	if c.Password == "" {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// direct is the value of an Authorization header for the registry itself, ""
// where nothing can be shown to it.
func (c Credential) direct() string {
	if c.Bearer != "" {
		return "Bearer " + c.Bearer
	}
	return c.basic()
}

// String names the credential without its secrets.
func (c Credential) String() string {
	switch {
	case c.Anonymous():
		return "anonymous"
	case c.Bearer != "":
		return "a bearer token"
	case c.Identity != "":
		return "an identity token"
	case c.Username == "":
		return "a password without a user name"
	}
	return "user " + c.Username
}

// GoString keeps secrets out of %#v.
func (c Credential) GoString() string { return "credential.Credential(" + c.String() + ")" }

// Source is where credentials come from.
type Source interface {
	// Credential returns the credential that counts now. The error is for the log:
	// it may name files and programs, and names no secret.
	Credential(ctx context.Context) (Credential, error)
}

// Dropper is a Source that keeps what it found for a while.
type Dropper interface {
	// Drop says that a credential of this source was refused: the next one is
	// looked for again.
	Drop(refused Credential)
}

// fixed is a Source of one credential.
type fixed Credential

func (f fixed) Credential(context.Context) (Credential, error) { return Credential(f), nil }

// Anonymous shows nothing.
func Anonymous() Source { return fixed{} }

// Basic is a user name and a password.
func Basic(user, password string) Source { return fixed{Username: user, Password: password} }

// Bearer is a token that the registry itself takes.
func Bearer(token string) Source { return fixed{Bearer: token} }
