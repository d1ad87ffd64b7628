package auth

import "errors"

// ErrCredentials is matched by errors about absent or wrong credentials. Which
// of the two a caller is told is the front's decision; that a name exists is
// told to nobody.
var ErrCredentials = errors.New("log-in required")
