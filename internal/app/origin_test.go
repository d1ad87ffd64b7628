package app

import (
	"net/http"
	"testing"

	"github.com/berth-registry/berth/internal/proxyspec"
	"github.com/berth-registry/berth/internal/remote"
)

// TestCredentialsOfAnEndpoint: they are for the upstream and its own origin, however
// that is written, and for no mirror beside it.
func TestCredentialsOfAnEndpoint(t *testing.T) {
	authorize := authorizing(proxyspec.Proxy{
		Name:       "reg",
		Upstreams:  []string{"https://mirror.example", "http://reg.example", "https://reg.example/mirror", "https://Reg.example:443"},
		Credential: proxyspec.Credential{Username: "u", Password: "p"},
	})
	for address, want := range map[string]bool{
		"https://reg.example": true, "https://reg.example/mirror": true,
		"https://mirror.example": false, "http://reg.example": false, "https://reg.example:444": false,
	} {
		endpoint, err := remote.ParseAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		shown := false
		asked := sends(func(r *http.Request) { shown = shown || r.Header.Get("Authorization") != "" })
		a, err := authorize(endpoint, asked)
		if err != nil {
			t.Fatal(err)
		}
		header := http.Header{"Www-Authenticate": {`Basic realm="reg"`}}
		if _, err := a.Challenged(t.Context(), "team/app", "", header); err != nil && want {
			t.Errorf("%s: %v", address, err)
		}
		value, err := a.Authorization(t.Context(), "team/app")
		if shown = shown || err == nil && value != ""; shown != want {
			t.Errorf("%s is shown the credentials: %v (%v), want %v", address, shown, err, want)
		}
	}
}

// sends is a transport that is told of requests and grants them all.
type sends func(*http.Request)

func (f sends) RoundTrip(r *http.Request) (*http.Response, error) {
	f(r)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}
