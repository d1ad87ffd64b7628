package soak

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	_ "github.com/jackc/pgx/v5/stdlib" // the engine of Inventory
)

// Replicas is the fleet of examples/replicas: PostgreSQL, an S3 service, two
// berths, a load balancer.
type Replicas struct {
	script, dir string
	settings    []string // environment
	env         map[string]string
	password    string
	bucket      *s3.Client
}

var _ System = (*Replicas)(nil)

// NewReplicas starts a fleet that has all it has in dir.
func NewReplicas(script, dir string, settings []string) (*Replicas, error) {
	f := &Replicas{script: script, dir: dir, settings: settings, env: map[string]string{}}
	if _, err := f.run("up"); err != nil {
		return f, err
	}
	out, err := f.run("env")
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		f.env[name] = value
	}
	key, err := os.ReadFile(f.env["KEY_FILE"])
	if err != nil {
		return f, err
	}
	f.password = strings.TrimSpace(string(key))
	f.bucket = s3.New(s3.Options{
		Region: f.env["AWS_REGION"], BaseEndpoint: aws.String(f.env["S3_ENDPOINT"]), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(f.env["AWS_ACCESS_KEY_ID"], f.env["AWS_SECRET_ACCESS_KEY"], ""),
	})
	return f, nil
}

func (f *Replicas) Targets() []Target {
	return []Target{{"berth-1", f.env["BERTH_1"]}, {"balancer", f.env["URL"]}, {"berth-2", f.env["BERTH_2"]}}
}

func (f *Replicas) Credentials() (user, password string) { return "admin", f.password }

func (f *Replicas) Parts() []string {
	return []string{"postgres", "s3", "berth-1", "berth-2", "balancer"}
}
func (f *Replicas) Logs() string { return f.dir }

func (f *Replicas) Deck() []Blow {
	one, two := Blow{true, []string{"berth-1"}}, Blow{true, []string{"berth-2"}}
	return []Blow{
		one, two, one, two, one, two, {true, []string{"berth-1", "berth-2"}}, {false, []string{"berth-1"}},
		{true, []string{"postgres"}}, {false, []string{"postgres"}}, {true, []string{"postgres", "berth-2"}},
		{true, []string{"s3"}}, {false, []string{"s3"}}, {true, []string{"s3", "berth-1"}},
	}
}

func (f *Replicas) Start(part string) error { _, err := f.run("start", part); return err }
func (f *Replicas) Stop(part string) error  { _, err := f.run("stop", part); return err }
func (f *Replicas) Kill(part string) error  { _, err := f.run("kill", part); return err }

// Close ends all parts.
func (f *Replicas) Close() error { _, err := f.run("down"); return err }

func (f *Replicas) run(args ...string) (string, error) {
	cmd := exec.Command(f.script, append([]string{f.dir}, args...)...)
	cmd.Env = append(withoutBerth(os.Environ()), f.settings...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", f.script, strings.Join(args, " "), err, out.Bytes(), errs.Bytes())
	}
	return out.String(), nil
}

func (f *Replicas) Check(ctx context.Context) (string, error) {
	var binary string
	env := withoutBerth(os.Environ())
	for _, s := range f.settings {
		if name, value, _ := strings.Cut(s, "="); name == "BERTH_BINARY" {
			binary = value
		} else {
			env = append(env, s)
		}
	}
	cmd := exec.CommandContext(ctx, binary, "check", "--deep", "--data", f.dir+"/berth-1")
	cmd.Env = append(env, "BERTH_METADATA_POSTGRES_URL="+f.env["POSTGRES_URL"], "BERTH_STORAGE_S3_ENDPOINT="+f.env["S3_ENDPOINT"],
		"BERTH_STORAGE_S3_BUCKET="+f.env["S3_BUCKET"], "BERTH_STORAGE_S3_PATH_STYLE=true", "AWS_REGION="+f.env["AWS_REGION"],
		"AWS_ACCESS_KEY_ID="+f.env["AWS_ACCESS_KEY_ID"], "AWS_SECRET_ACCESS_KEY="+f.env["AWS_SECRET_ACCESS_KEY"])
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (f *Replicas) Inventory(ctx context.Context) (*Inventory, error) {
	db, err := sql.Open("pgx", f.env["POSTGRES_URL"])
	if err != nil {
		return nil, err
	}
	defer db.Close()
	v := newInventory()
	if err := v.readRows(ctx, db, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}); err != nil {
		return nil, err
	}
	return v, f.readBucket(ctx, v)
}

// readBucket lists objects (blobs/KEY), tails of unfinished ones
// (tails/KEY/NAME), and multipart uploads.
func (f *Replicas) readBucket(ctx context.Context, v *Inventory) error {
	bucket := aws.String(f.env["S3_BUCKET"])
	objects := s3.NewListObjectsV2Paginator(f.bucket, &s3.ListObjectsV2Input{Bucket: bucket})
	for objects.HasMorePages() {
		page, err := objects.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, o := range page.Contents {
			kind, key, _ := strings.Cut(*o.Key, "/")
			if kind == "blobs" {
				v.Objects[key] = *o.Size
				continue
			}
			key, _, _ = strings.Cut(key, "/")
			v.Pieces[*o.Key] = key
		}
	}
	uploads := s3.NewListMultipartUploadsPaginator(f.bucket, &s3.ListMultipartUploadsInput{Bucket: bucket})
	for uploads.HasMorePages() {
		page, err := uploads.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, u := range page.Uploads {
			v.Pieces["multipart upload "+*u.UploadId] = strings.TrimPrefix(*u.Key, "blobs/")
		}
	}
	return nil
}
