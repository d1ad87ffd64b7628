package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// blob BYTES STATUS pushes a blob of that size in one request and wants that
// status. Then DIGEST is set. What is refused goes to stdout.
func blobCommand(ts *testscript.TestScript, neg bool, args []string) {
	content := bytes.Repeat([]byte("berth"), sizeArg(ts, neg, args, "blob BYTES STATUS")/5)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(content))
	ts.Setenv("DIGEST", digest)
	push(ts, http.MethodPost, uploadRepo+"uploads/?digest="+digest, "application/octet-stream", content, args[1])
}

// manifest BYTES STATUS pushes an index with an annotation of that size and
// wants that status. Then DIGEST is set. What is refused goes to stdout.
func manifestCommand(ts *testscript.TestScript, neg bool, args []string) {
	const index = "application/vnd.oci.image.index.v1+json"
	filler := strings.Repeat("x", sizeArg(ts, neg, args, "manifest BYTES STATUS"))
	content := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],"annotations":{"filler":%q}}`, index, filler)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(content))
	ts.Setenv("DIGEST", digest)
	push(ts, http.MethodPut, "/v2/team/app/manifests/"+digest, index, content, args[1])
}

func sizeArg(ts *testscript.TestScript, neg bool, args []string, form string) int {
	usage(ts, !neg && len(args) == 2, form)
	size, err := strconv.Atoi(args[0])
	usage(ts, err == nil, form)
	return size
}

func push(ts *testscript.TestScript, method, path, contentType string, content []byte, want string) {
	req, err := http.NewRequest(method, stateOf(ts).server.url+path, bytes.NewReader(content))
	ts.Check(err)
	req.Header.Set("Content-Type", contentType)
	resp := roundTrip(ts, req)
	if strconv.Itoa(resp.StatusCode) != want {
		ts.Fatalf("%s %s: %s, not %s", method, path, resp.Status, want)
	}
}

// damage FOLDER changes one byte in the middle of each file below a folder.
func damageCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "damage FOLDER")
	damaged := 0
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == "berth.lock" {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil || len(content) == 0 {
			return err
		}
		damaged++
		content[len(content)/2] ^= 1
		return os.WriteFile(path, content, 0)
	}))
	if damaged == 0 {
		ts.Fatalf("nothing is stored below %s", args[0])
	}
}

// disk FOLDER SIZE makes a folder that has no more room than that.
func diskCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "disk FOLDER SIZE")
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o755))
	ts.Check(syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+args[1]))
	ts.Defer(func() { ts.Check(syscall.Unmount(dir, 0)) })
}

// fill FILE LEFT grows a file until its disk has no more than LEFT bytes.
func fillCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "fill FILE LEFT")
	left, err := strconv.ParseUint(args[1], 10, 64)
	ts.Check(err)
	path := ts.MkAbs(args[0])
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	ts.Check(err)
	defer f.Close()
	for {
		var disk syscall.Statfs_t
		ts.Check(syscall.Statfs(filepath.Dir(path), &disk))
		free := disk.Bavail * uint64(disk.Bsize)
		if free <= left {
			return
		}
		if _, err := f.Write(make([]byte, min(free-left, 1<<20))); !errors.Is(err, syscall.ENOSPC) {
			ts.Check(err)
		}
	}
}

// freeze FOLDER takes the right to write there from everyone, thaw FOLDER gives
// it back. Modes do not bind root, a mount that is read-only does.
func freezeCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "freeze FOLDER")
	dir := ts.MkAbs(args[0])
	if os.Getuid() != 0 {
		ts.Check(os.Chmod(dir, 0o500))
		return
	}
	ts.Check(syscall.Mount(dir, dir, "", syscall.MS_BIND, ""))
	ts.Defer(func() { syscall.Unmount(dir, 0) }) // fails where it was thawed
	ts.Check(syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
}

func thawCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "thaw FOLDER")
	if os.Getuid() != 0 {
		ts.Check(os.Chmod(ts.MkAbs(args[0]), 0o700))
		return
	}
	ts.Check(syscall.Unmount(ts.MkAbs(args[0]), 0))
}
