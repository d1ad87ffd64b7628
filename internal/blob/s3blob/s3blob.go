// Package s3blob keeps blob objects in a bucket of an S3 service. A byte of an
// upload crosses this process once and is written to the bucket once: what is
// large goes there as the parts of a multipart upload under its final key, what
// is small as one request when it is sealed. Nothing is renamed or copied.
package s3blob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/berth-registry/berth/internal/blob"
)

// Limits and defaults.
const (
	MinPart       = 5 << 20 // S3 takes no smaller part, but as the last
	MaxPart       = 64 << 20
	DefaultPart   = 8 << 20
	DefaultMemory = 32 << 20
	DefaultTotal  = 384 << 20

	defaultAttempts = 8
	defaultBackoff  = 5 * time.Second
	defaultTimeout  = 10 * time.Second
)

// Checksum is what goes with the bytes of an object or a part, for the service
// to hold them against. All of them are headers: chunked encoding with trailers
// is what many services lack.
type Checksum string

// Checksums.
const (
	CRC32 Checksum = "crc32" // the default
	MD5   Checksum = "md5"   // Content-MD5, for services that refuse the newer headers
	None  Checksum = "none"  // what the connection itself has
)

// Options of New. Bucket is required.
type Options struct {
	Bucket string
	// Prefix of all keys in the bucket, such as "berth/". A "/" is added to
	// one that lacks it.
	Prefix string
	// Region of the bucket. Default: that of the SDK's configuration, or
	// us-east-1 with an Endpoint.
	Region string
	// Endpoint is the service's URL. Default: that of AWS.
	Endpoint string
	// PublicEndpoint is the URL under which clients reach the service, where
	// that is another. Default: Endpoint.
	PublicEndpoint string
	// PathStyle puts the bucket into the path rather than the host name.
	PathStyle bool
	// PartSize is that of an upload's first parts, from MinPart to MaxPart.
	PartSize int64
	// EqualParts makes all parts but the last have PartSize, as R2 asks for (it
	// is set for R2's endpoints). It bounds a blob by 10 000 × PartSize, and a
	// session's row by PartSize.
	EqualParts bool
	// Memory bounds the buffers of one upload, in bytes. A part that does not
	// fit goes through a file in Scratch. Default: DefaultMemory.
	Memory int64
	// TotalMemory bounds the buffers of all uploads together. What it has no
	// room for goes through files in Scratch too. Default: DefaultTotal.
	TotalMemory int64
	// Scratch is the folder of such files. Default: the system's.
	Scratch string
	// Checksum of what is written. Default: CRC32.
	Checksum Checksum
	// Encryption is "", "AES256" or "aws:kms", the latter with KMSKey or the
	// bucket's default key.
	Encryption, KMSKey string
	// StorageClass of the objects. Default: the bucket's.
	StorageClass string
	// Attempts at one request, the first included, and the longest wait
	// between two. Default: 8, 5 seconds.
	Attempts int
	Backoff  time.Duration
	// Timeout is how long the service may be silent: take no byte, or give
	// none. What is read is tried again for as long, what is written for twice
	// as long. Default: 10 seconds.
	Timeout time.Duration
	// Config replaces the SDK's own configuration (environment, files, web
	// identity, container and instance roles); nil does not.
	Config *aws.Config
	// Observe is told of each call of the service when it has ended; it must be
	// quick. nil: nobody is.
	Observe func(ctx context.Context, c Call)
}

// Store is a part of a bucket: blobs/ holds objects, tails/ what uploads that
// arrive in small pieces have not yet as parts.
type Store struct {
	o      Options
	client *s3.Client
	sign   *s3.PresignClient
	least  int64 // bytes of the smallest part
	memory memory
	rash   atomic.Bool // the service refuses conditional writes
	chunks sync.Pool   // of *[chunkSize]byte
}

var _ blob.Sweeper = (*Store)(nil)

// New makes a store; it asks the service for nothing.
func New(ctx context.Context, o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	var cfg aws.Config
	if o.Config != nil {
		cfg = o.Config.Copy()
	} else {
		var err error
		if cfg, err = config.LoadDefaultConfig(ctx); err != nil {
			return nil, fmt.Errorf("configuration of S3: %w", err)
		}
	}
	cfg.Region = cmp.Or(o.Region, cfg.Region)
	if cfg.Region == "" {
		if o.Endpoint == "" {
			return nil, errors.New("S3 needs a region: set storage.s3.region, or AWS_REGION")
		}
		cfg.Region = "us-east-1"
	}
	cfg.HTTPClient = patient{transport(cfg.HTTPClient), o.Timeout}
	s := &Store{o: o, least: MinPart, chunks: sync.Pool{New: func() any { return new([chunkSize]byte) }}}
	s.memory.left = o.TotalMemory
	if o.EqualParts {
		s.least = o.PartSize
	}
	s.client = s3.NewFromConfig(cfg, s.configure)
	s.sign = s3.NewPresignClient(s.client, func(p *s3.PresignOptions) {
		if o.PublicEndpoint != "" {
			p.ClientOptions = append(p.ClientOptions, func(c *s3.Options) { c.BaseEndpoint = &o.PublicEndpoint })
		}
	})
	return s, nil
}

// Check finds what is wrong with options, without asking the service.
func (o Options) Check() error { return o.complete() }

// complete checks options and fills in the defaults.
func (o *Options) complete() error {
	o.PartSize = cmp.Or(o.PartSize, DefaultPart)
	o.Memory = cmp.Or(o.Memory, DefaultMemory)
	o.TotalMemory = cmp.Or(o.TotalMemory, DefaultTotal)
	o.Checksum = cmp.Or(o.Checksum, CRC32)
	o.Attempts = cmp.Or(o.Attempts, defaultAttempts)
	o.Backoff = cmp.Or(o.Backoff, defaultBackoff)
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	if u, err := url.Parse(o.Endpoint); err == nil && strings.HasSuffix(u.Hostname(), ".r2.cloudflarestorage.com") {
		o.EqualParts = true
	}
	if o.Prefix != "" && !strings.HasSuffix(o.Prefix, "/") {
		o.Prefix += "/"
	}
	switch {
	case o.Bucket == "":
		return errors.New("S3 needs a bucket")
	case o.PartSize < MinPart || o.PartSize > MaxPart:
		return fmt.Errorf("S3 part size %d: %d to %d are allowed", o.PartSize, MinPart, MaxPart)
	case o.Memory < minMemory:
		return fmt.Errorf("S3 memory of an upload %d: at least %d are needed", o.Memory, minMemory)
	case o.TotalMemory < 0:
		return fmt.Errorf("S3 memory of all uploads %d: it must not be negative", o.TotalMemory)
	case o.Checksum != CRC32 && o.Checksum != MD5 && o.Checksum != None:
		return fmt.Errorf("S3 checksum %q: crc32, md5 and none are known", o.Checksum)
	case o.Encryption != "" && o.Encryption != "AES256" && o.Encryption != "aws:kms":
		return fmt.Errorf("S3 encryption %q: AES256 and aws:kms are known", o.Encryption)
	case o.KMSKey != "" && o.Encryption != "aws:kms":
		return errors.New("a KMS key needs the S3 encryption aws:kms")
	case !isURL(o.Endpoint) || !isURL(o.PublicEndpoint):
		return fmt.Errorf("S3 endpoint %q, public endpoint %q: want http://HOST or https://HOST, without a user", o.Endpoint, o.PublicEndpoint)
	case strings.HasPrefix(o.Prefix, "/"):
		return fmt.Errorf("S3 prefix %q must not begin with a slash", o.Prefix)
	}
	return nil
}

// isURL accepts "" too.
func isURL(text string) bool {
	if text == "" {
		return true
	}
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && u.RawQuery == ""
}

func (s *Store) configure(c *s3.Options) {
	if s.o.Observe != nil {
		c.APIOptions = append(c.APIOptions, observer{s.o.Observe}.install)
	}
	c.UsePathStyle = s.o.PathStyle
	if s.o.Endpoint != "" {
		c.BaseEndpoint = &s.o.Endpoint
	}
	// Checksums are ours, as headers: see Checksum.
	c.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	c.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	c.Retryer = bounded{retry.NewStandard(func(r *retry.StandardOptions) {
		r.MaxAttempts = s.o.Attempts
		r.MaxBackoff = min(s.o.Backoff, s.o.Timeout/2)
		r.RateLimiter = ratelimit.None // attempts are bounded; uploads must not spend each other's
	}), s.o.Timeout}
	c.APIOptions = append(c.APIOptions, startClock)
}

// transport suits the SDK's own client, which may have certificates from its
// configuration, to many uploads at once; another is left alone.
func transport(client aws.HTTPClient) aws.HTTPClient {
	own, ok := client.(*awshttp.BuildableClient)
	if client != nil && !ok {
		return client
	}
	if !ok {
		own = awshttp.NewBuildableClient()
	}
	return own.WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns, t.MaxIdleConnsPerHost = 512, 256
		t.WriteBufferSize, t.ReadBufferSize = 64<<10, 64<<10
	})
}

// name is the full key of an object whose key has passed CheckKey.
func (s *Store) name(key string) *string { return aws.String(s.o.Prefix + "blobs/" + key) }

// tail is the full key of a piece of an upload.
func (s *Store) tail(key, name string) string { return s.tails(key) + name }

func (s *Store) tails(key string) string { return s.o.Prefix + "tails/" + key + "/" }
