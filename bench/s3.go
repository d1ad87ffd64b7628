package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	s3User, s3Secret, s3Bucket = "benchkey", "benchsecret", "bench"

	s3Part     = 8 << 20 // as Berth's first ones
	s3AtOnce   = 4       // parts of one blob, as Berth has them
	s3Objects  = 64      // small ones that are pulled
	s3SmallMax = 5 << 20 // below, one request
)

// s3Bench compares Berth on S3 with the SDK straight to the same service: the
// limit is what the service takes and gives.
type s3Bench struct {
	opts    options
	src     *source
	client  *s3.Client
	gateway *target
	berths  map[string]*target // by storage.s3.redirect
	next    atomic.Int64
}

// s3Load is one row: how fast n clients are with blobs of a size.
type s3Load struct {
	name        string
	size        int64
	clients     int
	bare, berth func(ctx context.Context, l s3Load) (opsPerSecond float64, err error)
}

func runS3(ctx context.Context, o options) (err error) {
	work, err := os.MkdirTemp(o.dir, "berth-bench-s3-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b := &s3Bench{opts: o, src: newSource(), berths: map[string]*target{}}
	version, err := b.start(ctx, work)
	defer func() { err = errors.Join(err, b.stop()) }()
	if err != nil {
		return err
	}
	text := "| Load on S3 | Unit | The SDK alone | Berth | Berth ÷ SDK |\n|---|---|--:|--:|--:|\n"
	for _, l := range b.loads() {
		line, err := b.measure(ctx, l)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		text += line
	}
	host, err := describeHost(work)
	if err != nil {
		return err
	}
	fmt.Printf("%s\nMedians of %d rounds of %s; a ratio is the median, with the lowest and the highest, of the rounds'.\n\n- Machine: %s\n- Service: versitygw on the same machine\n- Berth: %s\n- Date: %s\n",
		text, o.rounds, o.duration, host, version, time.Now().UTC().Format(time.DateOnly))
	return nil
}

// start runs the service, and a Berth for each way of pulling.
func (b *s3Bench) start(ctx context.Context, work string) (version string, err error) {
	gateway, err := filepath.Abs(filepath.Join(b.opts.root, ".tools", "bin", "versitygw"))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(work, "s3")
	for _, sub := range []string{"data/" + s3Bucket, "iam"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return "", err
		}
	}
	service := server{
		env: []string{"ROOT_ACCESS_KEY=" + s3User, "ROOT_SECRET_KEY=" + s3Secret, "HOME=" + dir},
		arguments: func(addr, dir string) ([]string, error) {
			return []string{gateway, "--quiet", "--keep-alive", "--port", addr, "--health", "/v2/", "--iam-dir", dir + "/iam", "posix", dir + "/data"}, nil
		},
	}
	if b.gateway, err = service.start(ctx, dir); err != nil {
		return "", err
	}
	b.client = s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://" + b.gateway.addr), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s3User, s3Secret, ""),
		HTTPClient:  &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10}},
	})
	berth, err := buildBerth(ctx, b.opts, work)
	if err != nil {
		return "", err
	}
	for _, redirect := range []string{"always", "never"} {
		berth.env = []string{
			"AWS_ACCESS_KEY_ID=" + s3User, "AWS_SECRET_ACCESS_KEY=" + s3Secret, "BERTH_STORAGE_S3_BUCKET=" + s3Bucket, "BERTH_STORAGE_S3_REGION=us-east-1",
			"BERTH_STORAGE_S3_ENDPOINT=http://" + b.gateway.addr, "BERTH_STORAGE_S3_PATH_STYLE=true",
			"BERTH_STORAGE_S3_PREFIX=" + redirect, "BERTH_STORAGE_S3_REDIRECT=" + redirect,
		}
		if b.berths[redirect], err = berth.start(ctx, filepath.Join(work, redirect)); err != nil {
			return "", err
		}
	}
	return berth.version, nil
}

func (b *s3Bench) stop() (err error) {
	for _, t := range b.berths {
		if t != nil {
			err = errors.Join(err, t.stop())
		}
	}
	if b.gateway != nil {
		err = errors.Join(err, b.gateway.stop())
	}
	return err
}

func (b *s3Bench) loads() []s3Load {
	var all []s3Load
	for _, c := range []struct {
		size    int64
		clients int
	}{{b.opts.blobSize, fewClients}, {smallBlob, manyClients}} {
		what := fmt.Sprintf("%s, %d clients", mebibytes(c.size), c.clients)
		all = append(all,
			s3Load{"Push, " + what, c.size, c.clients, b.barePush, b.berthPush},
			s3Load{"Pull by redirection, " + what, c.size, c.clients, b.barePull, b.berthPull("always")},
			s3Load{"Pull through Berth, " + what, c.size, c.clients, b.barePull, b.berthPull("never")})
	}
	return all
}

// measure lets both take turns and writes a line of the table.
func (b *s3Bench) measure(ctx context.Context, l s3Load) (string, error) {
	var bare, berth, ratio []float64
	for range b.opts.rounds {
		one, err := l.bare(ctx, l)
		if err != nil {
			return "", fmt.Errorf("with the SDK: %w", err)
		}
		two, err := l.berth(ctx, l)
		if err != nil {
			return "", fmt.Errorf("with berth: %w", err)
		}
		unit := float64(l.size) / (1 << 20)
		bare, berth, ratio = append(bare, one*unit), append(berth, two*unit), append(ratio, two/one)
		fmt.Fprintf(os.Stderr, "%s: %s and %s MiB/s\n", l.name, number(one*unit), number(two*unit))
	}
	r := spreadOf(ratio)
	return fmt.Sprintf("| %s | MiB/s | %s | %s | %.2f (%.2f–%.2f) |\n", l.name, number(spreadOf(bare).median), number(spreadOf(berth).median), r.median, r.low, r.high), nil
}

// repeat runs op on n clients that are no connections to Berth.
func (b *s3Bench) repeat(ctx context.Context, n int, op func(ctx context.Context) error) (float64, error) {
	f := make(fleet, n)
	for i := range f {
		f[i] = &worker{id: i}
	}
	return f.rate(b.opts.duration, func(*worker) error { return op(ctx) })
}

func (b *s3Bench) name() *string { return aws.String(fmt.Sprint("bare/", b.next.Add(1))) }

func (b *s3Bench) barePush(ctx context.Context, l s3Load) (float64, error) {
	return b.repeat(ctx, l.clients, func(ctx context.Context) error { return b.upload(ctx, b.name(), l.size) })
}

// upload sends a blob as Berth does: one request, or parts.
func (b *s3Bench) upload(ctx context.Context, key *string, size int64) error {
	blob := b.src.blob(size)
	var content []byte // of the largest piece; all of them are alike but for the tail
	for _, part := range blob.appendTo(nil) {
		if content = append(content, part...); len(content) >= s3Part {
			break
		}
	}
	if size < s3SmallMax {
		_, err := b.client.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(s3Bucket), Key: key, Body: strings.NewReader(string(content))})
		return err
	}
	up, err := b.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: aws.String(s3Bucket), Key: key})
	if err != nil {
		return err
	}
	parts := make([]types.CompletedPart, (size+s3Part-1)/s3Part)
	errs := make([]error, len(parts))
	slots := make(chan struct{}, s3AtOnce)
	var sends sync.WaitGroup
	for i := range parts {
		slots <- struct{}{}
		sends.Go(func() {
			defer func() { <-slots }()
			n := min(s3Part, size-int64(i)*s3Part)
			out, err := b.client.UploadPart(ctx, &s3.UploadPartInput{
				Bucket: aws.String(s3Bucket), Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(int32(i + 1)), Body: strings.NewReader(string(content[:n])),
			})
			if errs[i] = err; err == nil {
				parts[i] = types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32}
			}
		})
	}
	sends.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err = b.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: aws.String(s3Bucket), Key: key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	return err
}

func (b *s3Bench) berthPush(ctx context.Context, l s3Load) (float64, error) {
	f, err := newFleet(ctx, b.berths["always"].addr, l.clients)
	if err != nil {
		return 0, err
	}
	defer f.close()
	return f.rate(b.opts.duration, func(w *worker) error {
		blob := b.src.blob(l.size)
		return w.pushBlob(w.repo("push"), &blob)
	})
}

func (l s3Load) objects() int {
	if l.size < s3SmallMax {
		return s3Objects
	}
	return l.clients
}

func (b *s3Bench) barePull(ctx context.Context, l s3Load) (float64, error) {
	keys := make([]*string, l.objects())
	for i := range keys {
		keys[i] = b.name()
		if err := b.upload(ctx, keys[i], l.size); err != nil {
			return 0, err
		}
	}
	var turn atomic.Int64
	return b.repeat(ctx, l.clients, func(ctx context.Context) error {
		out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(s3Bucket), Key: keys[int(turn.Add(1))%len(keys)]})
		if err != nil {
			return err
		}
		defer out.Body.Close()
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, out.Body, make([]byte, 256<<10))
		if err == nil && n != l.size {
			err = fmt.Errorf("%d bytes, want %d", n, l.size)
		}
		return err
	})
}

// berthPull pulls from a Berth that redirects, or from one that does not.
func (b *s3Bench) berthPull(redirect string) func(context.Context, s3Load) (float64, error) {
	return func(ctx context.Context, l s3Load) (float64, error) {
		t := b.berths[redirect]
		blobs := b.src.blobs(l.objects(), l.size)
		f, err := newFleet(ctx, t.addr, l.clients)
		if err != nil {
			return 0, err
		}
		defer f.close()
		if err := f.share(len(blobs), func(w *worker, i int) error { return w.pushBlob(pullRepo, &blobs[i]) }); err != nil {
			return 0, err
		}
		direct, err := newFleet(ctx, b.gateway.addr, l.clients)
		if err != nil {
			return 0, err
		}
		defer direct.close()
		return f.rate(b.opts.duration, func(w *worker) error {
			path := blobPath(pullRepo, blobs[(w.id+w.done)%len(blobs)].digest)
			if redirect == "never" {
				_, err := w.do(request{method: http.MethodGet, path: path, want: http.StatusOK, wantSize: l.size})
				return err
			}
			header, err := w.do(request{method: http.MethodGet, path: path, want: http.StatusTemporaryRedirect})
			if err != nil {
				return err
			}
			u, err := url.Parse(header.Get("Location"))
			if err != nil {
				return err
			}
			_, err = direct[w.id].do(request{method: http.MethodGet, path: u.RequestURI(), want: http.StatusOK, wantSize: l.size})
			return err
		})
	}
}
