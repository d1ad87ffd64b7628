package credential

import (
	"context"
	"net/http"
	"strings"
)

// Explain says in words what a registry asks for in the header of a 401, and who
// we are for it.
func (a *Authorizer) Explain(ctx context.Context, header http.Header) (wants, shows string) {
	for _, c := range parseChallenges(header.Values("WWW-Authenticate")) {
		switch c.scheme {
		case "bearer":
			host := "an address that makes no sense"
			if u, err := a.realms.upstream.Parse(c.params["realm"]); err == nil && u.Host != "" {
				host = shown(u.Host)
			}
			wants = join(wants, "a token of the token service at "+host)
		case "basic":
			wants = join(wants, "a user name and a password")
		default:
			wants = join(wants, "a log-in of the kind "+shown(c.scheme)+", which Berth does not know")
		}
	}
	if wants == "" {
		wants = "a log-in, but does not say which"
	}
	c, err := a.source.Credential(ctx)
	if err != nil {
		return wants, "unknown: the configured credentials cannot be had"
	}
	return wants, c.String()
}

func join(all, more string) string {
	return strings.TrimPrefix(all+" or "+more, " or ")
}
