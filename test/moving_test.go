package test

import (
	"errors"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMoveToBucket follows docs/scaling.md from a folder to a bucket: what was
// stored stays, and what was deleted or unfinished goes.
func TestMoveToBucket(t *testing.T) {
	f := sharedFleet(t)
	data := filepath.Join(t.TempDir(), "data")
	old := mustStart(t, data)
	r := &repo{t, old.api, "moved/app"}
	image := r.pushImage("v1", 6000, 6001)
	begun := &session{repo: r.name, content: stuff{6002, 1 << 20}}
	var err error
	if begun.path, err = old.startUpload(r.name); err != nil {
		t.Fatal(err)
	}
	if err := begun.patch(old.api, 500_000); err != nil {
		t.Fatal(err)
	}
	if err := old.terminate(); err != nil {
		t.Fatal(err)
	}

	prefix := nameOf(t) + "/"
	shell(t, data, []string{
		"RCLONE_CONFIG_S3_TYPE=s3", "RCLONE_CONFIG_S3_PROVIDER=Other", "RCLONE_CONFIG_S3_ENV_AUTH=true",
		"RCLONE_CONFIG_S3_ENDPOINT=" + f.env["S3_ENDPOINT"], "AWS_REGION=" + f.env["AWS_REGION"],
		"AWS_ACCESS_KEY_ID=" + f.env["AWS_ACCESS_KEY_ID"], "AWS_SECRET_ACCESS_KEY=" + f.env["AWS_SECRET_ACCESS_KEY"],
		"RCLONE_CONFIG=/dev/null", "AWS_CA_BUNDLE=", // rclone fails over one
		"BUCKET=" + f.env["S3_BUCKET"], "PREFIX=" + prefix,
	}, `mkdir flat
		find blobs -mindepth 2 -type f -exec ln -t flat {} +
		rclone copy --checksum flat "s3:$BUCKET/${PREFIX}blobs"
		rclone check --one-way flat "s3:$BUCKET/${PREFIX}blobs"`)

	settings := append(inBucket(t), "BERTH_UPLOADS_EXPIRE=1s", "BERTH_GC_INTERVAL=1s")
	moved, err := start(data, settings...)
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, moved)
	r.api = moved.api
	r.same("v1", image.Digest)
	r.pushImage("v2", 6000, 6003)
	r.verify("v2")
	// A session of the folder is of no use here; it goes, and begins anew.
	var status *statusError
	if err := begun.patch(moved.api, 500_000); !errors.As(err, &status) {
		t.Errorf("an upload that was begun in the folder: %v", err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		_, _, err := moved.uploadOffset(begun.path)
		if errors.As(err, &status) && status.got == 404 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the upload of the folder stays: %v", err)
		}
	}
	time.Sleep(2 * time.Second) // two collections
	if log := moved.log.tail(); strings.Contains(log, "collection failed") {
		t.Error(log)
	}
	check := berth("check", "--data", data)
	check.Env = append(check.Env, settings...)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("berth check: %v\n%s", err, out)
	}
}

// TestMoveToReplicas follows docs/scaling.md from one server to a fleet.
func TestMoveToReplicas(t *testing.T) {
	f := sharedFleet(t)
	old := mustStart(t, filepath.Join(t.TempDir(), "data"))
	r := &repo{t, old.api, "leaving/app"}
	image := r.pushImage("v1", 6010, 6011)
	r.pushImage("v2", 6012)
	crane := newClient(t, "crane").at(&place{api: f.through(t).root(), user: "admin", secret: f.key})
	new, err := url.Parse(f.env["URL"])
	if err != nil {
		t.Fatal(err)
	}
	shell(t, t.TempDir(), append(crane.env, "OLD="+old.host(), "NEW="+new.Host, "PATH="+filepath.Dir(crane.path)+":/usr/bin:/bin"),
		`crane catalog "$OLD" | while read -r name; do crane copy --all-tags "$OLD/$name" "$NEW/$name"; done`)
	moved := &repo{t, f.through(t).root(), r.name}
	moved.hasTags("v1", "v2")
	moved.same("v1", image.Digest)
}

// shell runs what a person would type in a folder.
func shell(t *testing.T, dir string, env []string, commands string) {
	t.Helper()
	cmd := exec.Command("bash", "-euc", commands)
	cmd.Dir = dir
	cmd.Env = append(berth().Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
}
