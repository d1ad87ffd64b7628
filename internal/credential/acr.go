package credential

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	azureRegistries = "https://containerregistry.azure.net" // what tokens for registries are for
	azureMetadata   = "http://169.254.169.254"
	azureAuthority  = "https://login.microsoftonline.com"
	azureLife       = 3 * time.Hour // of a registry's refresh token that does not say
)

// acr exchanges a token of Entra ID for the registry's refresh token, with which
// the registry's own token service gives others. Variables are those of Azure's
// SDKs: AZURE_CLIENT_ID, AZURE_TENANT_ID with AZURE_FEDERATED_TOKEN_FILE or
// AZURE_CLIENT_SECRET, AZURE_AUTHORITY_HOST; without, the machine's identity.
type acr struct{ Exchange }

func newACR(x Exchange) Source {
	return keep(x.Now, acr{x}.fetch)
}

func (a acr) fetch(ctx context.Context) (Credential, time.Duration, error) {
	entra, err := a.entra(ctx)
	if err != nil {
		return Credential{}, 0, err
	}
	service := hostname(a.Upstream)
	form := url.Values{"grant_type": {"access_token"}, "service": {service}, "access_token": {entra}}
	set(form, "tenant", os.Getenv("AZURE_TENANT_ID"))
	to := url.URL{Scheme: a.Upstream.Scheme, Host: a.Upstream.Host, Path: "/oauth2/exchange"}
	req, err := postForm(ctx, to.String(), form)
	if err != nil {
		return Credential{}, 0, err
	}
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	client := &http.Client{Transport: a.Transport, CheckRedirect: sameOrigin}
	if err := exchangeFor(client, req, "the exchange of "+shown(a.Upstream.Host), &answer, ociError); err != nil {
		return Credential{}, 0, err
	}
	if answer.RefreshToken == "" {
		return Credential{}, 0, errors.New("the exchange of " + shown(a.Upstream.Host) + " gave no refresh token")
	}
	c := Credential{Identity: answer.RefreshToken, Expires: jwtExpiry(answer.RefreshToken)}
	if c.Expires.IsZero() {
		c.Expires = a.Now().Add(azureLife)
	}
	return c.until(a.Now())
}

// ociError is the code of a registry's error.
func ociError(body []byte) string {
	var e struct {
		Errors []struct{ Code string }
	}
	if json.Unmarshal(body, &e) != nil || len(e.Errors) == 0 {
		return ""
	}
	return e.Errors[0].Code
}

// entra gets an access token for registries.
func (a acr) entra(ctx context.Context) (string, error) {
	client, tenant := os.Getenv("AZURE_CLIENT_ID"), os.Getenv("AZURE_TENANT_ID")
	file, secret := os.Getenv("AZURE_FEDERATED_TOKEN_FILE"), os.Getenv("AZURE_CLIENT_SECRET")
	if client == "" || tenant == "" || file == "" && secret == "" {
		return a.machine(ctx, client)
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {client}, "scope": {azureRegistries + "/.default"}}
	if file != "" {
		assertion, err := readSecret(file)
		if err != nil {
			return "", fmt.Errorf("AZURE_FEDERATED_TOKEN_FILE: %w", err)
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
	} else {
		form.Set("client_secret", secret)
	}
	authority := strings.TrimRight(cmp.Or(os.Getenv("AZURE_AUTHORITY_HOST"), azureAuthority), "/")
	req, err := postForm(ctx, authority+"/"+url.PathEscape(tenant)+"/oauth2/v2.0/token", form)
	if err != nil {
		return "", fmt.Errorf("AZURE_AUTHORITY_HOST: %w", err)
	}
	return entraToken(cloudClient(), req, "Entra ID")
}

// machine asks the metadata service of the machine for its managed identity. No
// proxy knows that address.
func (a acr) machine(ctx context.Context, client string) (string, error) {
	base := strings.TrimRight(cmp.Or(os.Getenv("AZURE_POD_IDENTITY_AUTHORITY_HOST"), azureMetadata), "/")
	query := url.Values{"api-version": {"2018-02-01"}, "resource": {azureRegistries}}
	set(query, "client_id", client)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metadata/identity/oauth2/token?"+query.Encode(), nil)
	if err != nil {
		return "", fmt.Errorf("AZURE_POD_IDENTITY_AUTHORITY_HOST: %w", withoutURL(err))
	}
	req.Header.Set("Metadata", "true")
	direct := http.DefaultTransport.(*http.Transport).Clone()
	direct.Proxy = nil
	defer direct.CloseIdleConnections()
	c := cloudClient()
	c.Transport = direct
	return entraToken(c, req, "the metadata service of Azure")
}

// entraToken sends a request for an access token.
func entraToken(client *http.Client, req *http.Request, what string) (string, error) {
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := exchangeFor(client, req, what, &answer, oauthError); err != nil {
		return "", err
	}
	if answer.AccessToken == "" {
		return "", errors.New(what + " gave no token")
	}
	return answer.AccessToken, nil
}
