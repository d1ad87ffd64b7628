package credential

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
)

// ecr asks Amazon for an authorization token: a user name and a password, good for
// twelve hours. It is one call of one API, made with the SDK's credentials and
// signature; the SDK's own clients for it would add some megabytes.
type ecr struct {
	Exchange
	service  string // as requests are signed for
	region   string
	target   string // the call
	endpoint string // of the API
	override string // variable with another one
}

// ecrHost is a registry's: account, FIPS, region, partition; or of the newer form
// with two address families.
var ecrHost = regexp.MustCompile(`^[0-9]{12}\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\.(amazonaws\.com|amazonaws\.com\.cn|on\.aws|on\.amazonwebservices\.com\.cn)$`)

func newECR(x Exchange) Source { return keep(x.Now, ecrOf(x).fetch) }

func ecrOf(x Exchange) ecr {
	e := ecr{Exchange: x, service: "ecr", target: "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken", override: "AWS_ENDPOINT_URL_ECR"}
	host := hostname(x.Upstream)
	m := ecrHost.FindStringSubmatch(host)
	switch {
	case host == "public.ecr.aws":
		e.service, e.region = "ecr-public", "us-east-1"
		e.target, e.override = "SpencerFrontendService.GetAuthorizationToken", "AWS_ENDPOINT_URL_ECR_PUBLIC"
		e.endpoint = "https://api.ecr-public.us-east-1.amazonaws.com"
	case m != nil:
		e.region = m[2]
		e.endpoint = "https://" + ecrAPI(m[1] != "", m[2])
	default: // a name of one's own before it: the region is that of the environment
	}
	return e
}

// ecrAPI is the host of the API in a region.
func ecrAPI(fips bool, region string) string {
	prefix, suffix := "api.ecr.", ".amazonaws.com"
	if fips {
		prefix = "api.ecr-fips."
	}
	if strings.HasPrefix(region, "cn-") {
		suffix += ".cn"
	}
	return prefix + region + suffix
}

func (e ecr) fetch(ctx context.Context) (Credential, time.Duration, error) {
	settings, err := e.settings(ctx)
	if err != nil {
		return Credential{}, 0, fmt.Errorf("configuration of AWS: %w", err)
	}
	req, err := e.request(ctx, settings)
	if err != nil {
		return Credential{}, 0, err
	}
	var answer struct {
		AuthorizationData json.RawMessage `json:"authorizationData"`
	}
	if err := exchangeFor(cloudClient(), req, "the API of ECR", &answer, awsError); err != nil {
		return Credential{}, 0, err
	}
	c, err := ecrCredential(answer.AuthorizationData)
	if err != nil {
		return c, 0, err
	}
	return c.until(e.Now())
}

// settings are those of AWS's tools, for the registry's region.
func (e ecr) settings(ctx context.Context) (aws.Config, error) {
	var options []func(*config.LoadOptions) error
	if e.region != "" {
		options = append(options, config.WithRegion(e.region))
	}
	settings, err := config.LoadDefaultConfig(ctx, options...)
	if err == nil && settings.Region == "" {
		err = errors.New("set AWS_REGION to the registry's region")
	}
	return settings, err
}

// request is the signed call.
func (e ecr) request(ctx context.Context, settings aws.Config) (*http.Request, error) {
	keys, err := settings.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("credentials of AWS: %w", err)
	}
	body := []byte("{}")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.api(settings), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("address of the API of ECR: %w", withoutURL(err))
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", e.target)
	hash := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(ctx, keys, req, hex.EncodeToString(hash[:]), e.service, settings.Region, e.Now())
	return req, err
}

// api is the address of the API: what the environment says, else Amazon's.
func (e ecr) api(settings aws.Config) string {
	api := e.endpoint
	if api == "" {
		api = "https://" + ecrAPI(false, settings.Region)
	}
	if settings.BaseEndpoint != nil {
		api = *settings.BaseEndpoint
	}
	if own := os.Getenv(e.override); own != "" {
		api = own
	}
	return strings.TrimRight(api, "/") + "/"
}

// awsError is the name of an error, as in "com.amazonaws.ecr#ServerException".
func awsError(body []byte) string {
	var e struct {
		Type string `json:"__type"`
	}
	_ = json.Unmarshal(body, &e) // of another form: no word
	return e.Type[strings.LastIndexByte(e.Type, '#')+1:]
}

type ecrToken struct {
	AuthorizationToken string  `json:"authorizationToken"`
	ExpiresAt          float64 `json:"expiresAt"` // seconds
}

// ecrCredential reads the token: one, or a list of one.
func ecrCredential(data json.RawMessage) (Credential, error) {
	var list []ecrToken
	if json.Unmarshal(data, &list) != nil {
		list = make([]ecrToken, 1)
		if json.Unmarshal(data, &list[0]) != nil {
			list = nil
		}
	}
	if len(list) == 0 {
		return Credential{}, errors.New("the API of ECR gave no token")
	}
	plain, err := base64.StdEncoding.DecodeString(list[0].AuthorizationToken)
	user, password, ok := strings.Cut(string(plain), ":")
	if err != nil || !ok || password == "" {
		return Credential{}, errors.New("the API of ECR gave a token that makes no sense")
	}
	c := Credential{Username: user, Password: password}
	if at := list[0].ExpiresAt; at > 0 && at < math.MaxInt32*2 {
		c.Expires = time.Unix(int64(at), 0)
	}
	return c, nil
}
