// Package s3test gives tests a real S3 service of their own, and ways to break
// the connection to it.
package s3test

import (
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

// Server is a versitygw over a folder of its own, with one bucket.
type Server struct {
	Address string // HOST:PORT
	Folder  string // of its buckets
	dir     string
	cmd     *exec.Cmd
}

// Binary is where `make tools` puts versitygw.
func Binary() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../../../../.tools/bin/versitygw")
}

// Start runs a server until the test ends. Without its binary it skips the test.
func Start(t testing.TB) *Server {
	t.Helper()
	if _, err := os.Stat(Binary()); err != nil {
		t.Skipf("no S3 service to test against: %v; install it with: GOBIN=$PWD/.tools/bin go install github.com/versity/versitygw/cmd/versitygw@v1.8.0", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Address: l.Addr().String(), dir: t.TempDir()}
	l.Close()
	s.Folder = filepath.Join(s.dir, "data")
	for _, dir := range []string{s.Folder, filepath.Join(s.dir, "iam")} {
		if err := os.Mkdir(dir, 0o750); err != nil {
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
	t.Helper()
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(Binary(), "--port", s.Address, "--health", "/health", "--iam-dir", filepath.Join(s.dir, "iam"), "posix", s.Folder)
	s.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	if err := s.wait(t.Context()); err != nil {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("versitygw did not start: %v\n%s", err, text)
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
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+"/health", nil)
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
