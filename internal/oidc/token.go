package oidc

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
)

const (
	maxToken    = 16 << 10 // bytes of an ID token
	maxLifetime = 24 * time.Hour
	skew        = time.Minute // that clocks may differ
)

// issuerOf reads who a token says it is from, which nothing has verified.
func issuerOf(raw string) (string, error) {
	if len(raw) > maxToken {
		return "", invalid("it has more than %d bytes", maxToken)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return "", invalid("it is not a signed JSON web token")
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return "", invalid("its payload is not base64url")
	}
	var claims map[string]any
	if err := unmarshal(payload, &claims); err != nil {
		return "", invalid("its payload is not a JSON object")
	}
	iss, _ := claims["iss"].(string)
	if iss == "" || len(iss) > maxURL {
		return "", invalid("it names no usable issuer")
	}
	return iss, nil
}

// checkTimes holds a token against the clock.
func checkTimes(t *gooidc.IDToken, claims map[string]any, now time.Time) error {
	switch {
	case t.Expiry.IsZero() || t.IssuedAt.IsZero():
		return invalid("it lacks exp or iat")
	case now.After(t.Expiry.Add(skew)):
		return invalid("it expired at %s", t.Expiry.UTC().Format(time.RFC3339))
	case t.IssuedAt.After(now.Add(skew)):
		return invalid("it is from the future; is the clock right?")
	case t.Expiry.Sub(t.IssuedAt) > maxLifetime:
		return invalid("it is valid for more than %v", maxLifetime)
	}
	nbf, ok := claims["nbf"]
	if !ok {
		return nil
	}
	number, _ := nbf.(json.Number)
	seconds, err := number.Float64()
	if err != nil || seconds > float64(now.Add(skew).Unix()) {
		return invalid("it is not valid yet")
	}
	return nil
}
