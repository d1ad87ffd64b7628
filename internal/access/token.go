package access

import "time"

// SigningKey signs the registry's tokens.
type SigningKey struct {
	ID        string
	Algorithm string // of JOSE
	Private   []byte // PKCS #8
	CreatedAt time.Time
	RetiredAt time.Time // since when it only verifies; zero: it signs
}

// RefreshToken is a long-lived token of a client, without its secret.
type RefreshToken struct {
	ID      string
	UserID  string // of a user, with a key or without; else KeyID is of a project's key
	User    string // name
	KeyID   string // of the key it was got with
	Service string // it is good for
	// Client and Address are whom it was given to, as they were.
	Client, Address string
	CreatedAt       time.Time
	// Since, of a user's new token, is what Subject.ValidAfter must not be above
	// for the log-in to count still. Zero for one with a key, which counts while
	// that does.
	Since     time.Time
	ExpiresAt time.Time
	LastUsed  time.Time // zero: never; within the hour
}

// LoginFailure is a wrong secret of late.
type LoginFailure struct {
	Bucket string // that it counts in
	Secret string // tells it from others of the bucket, and tells nothing else
}
