// Package s3test gives tests a real S3 service of their own, and ways to break
// the connection to it.
package s3test

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Credentials and bucket of every server.
const (
	AccessKey = "testkey"
	SecretKey = "testsecret1"
	Bucket    = "berth"
)

// Server is an S3 service over a folder of its own, with one bucket.
type Server struct {
	Address string // HOST:PORT
	dir     string
	d       dialect
	cmd     *exec.Cmd
}

// dialect is one of the programs that can be such a service.
type dialect struct {
	binary, health string
	args           func(address, dir string) []string
	env            []string
}

var versitygw = dialect{
	binary: "versitygw", health: "/health",
	args: func(address, dir string) []string {
		return []string{"--port", address, "--health", "/health", "--iam-dir", filepath.Join(dir, "iam"), "posix", filepath.Join(dir, "data")}
	},
	env: []string{"ROOT_ACCESS_KEY=" + AccessKey, "ROOT_SECRET_KEY=" + SecretKey},
}

var minio = dialect{
	binary: "minio", health: "/minio/health/ready",
	args: func(address, dir string) []string {
		return []string{"server", "--quiet", "--address", address, filepath.Join(dir, "data")}
	},
	env: []string{"MINIO_ROOT_USER=" + AccessKey, "MINIO_ROOT_PASSWORD=" + SecretKey, "MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_CALLHOME_ENABLE=off"},
}

// path is where scripts/install-test-tools puts a program.
func (d dialect) path() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../../../../.tools/bin", d.binary)
}

func (d dialect) installed() error {
	_, err := os.Stat(d.path())
	return err
}

// Start runs a versitygw until the test ends. Without it the test is skipped.
func Start(t testing.TB) *Server {
	t.Helper()
	if err := versitygw.installed(); err != nil {
		t.Skipf("no S3 service to test against: %v; install it with: GOBIN=$PWD/.tools/bin go install github.com/versity/versitygw/cmd/versitygw@v1.8.0", err)
	}
	return start(t, versitygw)
}

// External is a service that runs elsewhere, as the environment describes it;
// nil: it describes none. docs/s3-providers.md tells how.
func External() *Service {
	endpoint := os.Getenv("BERTH_TEST_S3_ENDPOINT")
	if endpoint == "" {
		return nil
	}
	return &Service{
		Endpoint: endpoint, Bucket: cmp.Or(os.Getenv("BERTH_TEST_S3_BUCKET"), Bucket), Region: os.Getenv("BERTH_TEST_S3_REGION"),
		HostStyle: os.Getenv("BERTH_TEST_S3_PATH_STYLE") == "false", Checksum: os.Getenv("BERTH_TEST_S3_CHECKSUM"),
	}
}

// Service is what a store needs to know of a service.
type Service struct {
	Endpoint, Bucket, Region string
	HostStyle                bool   // the bucket's name is part of the host's
	Checksum                 string // "": the default
}

// StartAll runs a versitygw and, where it is installed, a MinIO.
func StartAll(t testing.TB) map[string]*Server {
	t.Helper()
	all := map[string]*Server{"versitygw": Start(t)}
	if minio.installed() == nil {
		all["minio"] = start(t, minio)
	}
	return all
}

func start(t testing.TB, d dialect) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Address: l.Addr().String(), dir: t.TempDir(), d: d}
	l.Close()
	for _, dir := range []string{"data", "iam"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	s.Run(t)
	client := s3.NewFromConfig(s.Config(), func(o *s3.Options) { o.BaseEndpoint, o.UsePathStyle = aws.String(s.URL()), true })
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(Bucket)}); err != nil {
		t.Fatal(err)
	}
	return s
}

// Run starts the server again, after Kill.
func (s *Server) Run(t testing.TB) {
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Error(err)
		return
	}
	defer log.Close()
	s.cmd = exec.Command(s.d.path(), s.d.args(s.Address, s.dir)...)
	s.cmd.Env = append(append(os.Environ(), "HOME="+s.dir), s.d.env...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(s.Kill)
	if err := s.wait(t.Context()); err != nil {
		text, _ := os.ReadFile(log.Name())
		t.Errorf("%s did not start: %v\n%s", s.d.binary, err, text)
	}
}

// Kill ends the server at once.
func (s *Server) Kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *Server) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+s.d.health, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("its health is %s", resp.Status)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// URL is the server's endpoint.
func (s *Server) URL() string { return "http://" + s.Address }

// Config has the credentials of a server.
func (s *Server) Config() aws.Config {
	return aws.Config{Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider(AccessKey, SecretKey, "")}
}
