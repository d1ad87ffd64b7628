package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// manifestTypes is what the tests accept on a manifest GET.
const manifestTypes = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, " +
	"application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"

const ociManifest = "application/vnd.oci.image.manifest.v1+json"

// api speaks the distribution protocol to one server, as plainly as can be.
type api struct {
	base string // http://127.0.0.1:PORT
	http *http.Client
}

func newAPI(base string) *api {
	return &api{base: base, http: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64,
		DisableCompression:  true,
	}}}
}

// host is the server's address as it stands in image references.
func (a *api) host() string { return strings.TrimPrefix(a.base, "http://") }

// descriptor is the part of a descriptor that the tests look at.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// call sends one request and wants one of the given status codes. The caller
// closes the body. header is a list of names and values.
func (a *api) call(method, path string, body io.Reader, header []string, want ...int) (*http.Response, error) {
	req, err := http.NewRequest(method, a.base+path, body)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	for _, code := range want {
		if res.StatusCode == code {
			return res, nil
		}
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	return nil, &statusError{method, path, res.StatusCode, want, string(text)}
}

// send is call for an answer whose body does not matter.
func (a *api) send(method, path string, body io.Reader, header []string, want ...int) (http.Header, error) {
	res, err := a.call(method, path, body, header, want...)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.Header, err
}

// statusError is an answer with a code nobody wanted.
type statusError struct {
	method, path string
	got          int
	want         []int
	body         string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s %s: %d, want %v: %s", e.method, e.path, e.got, e.want, e.body)
}

// manifest returns the exact bytes behind a tag or digest and their media type,
// having held them against the digest that the server and ref claim.
func (a *api) manifest(repo, ref string) (d descriptor, content []byte, err error) {
	res, err := a.call("GET", "/v2/"+repo+"/manifests/"+ref, nil, []string{"Accept", manifestTypes}, 200)
	if err != nil {
		return d, nil, err
	}
	defer res.Body.Close()
	if content, err = io.ReadAll(io.LimitReader(res.Body, 16<<20)); err != nil {
		return d, nil, err
	}
	d = descriptor{res.Header.Get("Content-Type"), digestOf(content), int64(len(content))}
	if told := res.Header.Get("Docker-Content-Digest"); told != d.Digest {
		return d, nil, fmt.Errorf("%s/%s: Docker-Content-Digest is %q, the bytes have %s", repo, ref, told, d.Digest)
	}
	if strings.Contains(ref, ":") && ref != d.Digest {
		return d, nil, fmt.Errorf("%s/%s: the bytes have digest %s", repo, ref, d.Digest)
	}
	return d, content, nil
}

// checkBlob fetches a blob and holds its bytes against digest and size, in
// constant memory.
func (a *api) checkBlob(repo, digest string, size int64) error {
	res, err := a.call("GET", "/v2/"+repo+"/blobs/"+digest, nil, nil, 200)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	h := sha256.New()
	n, err := io.Copy(h, res.Body)
	if err != nil {
		return fmt.Errorf("blob %s of %s: after %d bytes: %w", digest, repo, n, err)
	}
	if got := fmt.Sprintf("sha256:%x", h.Sum(nil)); got != digest || n != size {
		return fmt.Errorf("blob %s of %s, %d bytes: got %s, %d bytes", digest, repo, size, got, n)
	}
	return nil
}

// verify fetches ref and everything below it, holds each byte against its
// digest, and returns ref's own descriptor.
func (a *api) verify(repo, ref string) (descriptor, error) {
	d, content, err := a.manifest(repo, ref)
	if err != nil {
		return d, err
	}
	var m struct {
		Config    *descriptor
		Layers    []descriptor
		Manifests []descriptor
	}
	if err := json.Unmarshal(content, &m); err != nil {
		return d, fmt.Errorf("%s/%s: %w", repo, ref, err)
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, blob := range m.Layers {
		if err := a.checkBlob(repo, blob.Digest, blob.Size); err != nil {
			return d, fmt.Errorf("%s/%s: %w", repo, ref, err)
		}
	}
	for _, child := range m.Manifests {
		got, err := a.verify(repo, child.Digest)
		if err != nil {
			return d, fmt.Errorf("%s/%s: %w", repo, ref, err)
		}
		if got.Size != child.Size {
			return d, fmt.Errorf("%s/%s: child %s has %d bytes, its descriptor says %d", repo, ref, child.Digest, got.Size, child.Size)
		}
	}
	return d, nil
}

// tags lists a repository's tags as the server orders them.
func (a *api) tags(repo string) ([]string, error) {
	res, err := a.call("GET", "/v2/"+repo+"/tags/list", nil, nil, 200)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var list struct{ Tags []string }
	err = json.NewDecoder(res.Body).Decode(&list)
	return list.Tags, err
}

// pushBlob uploads content with a POST and a PUT.
func (a *api) pushBlob(repo string, content []byte) (descriptor, error) {
	d := descriptor{"application/octet-stream", digestOf(content), int64(len(content))}
	session, err := a.startUpload(repo)
	if err != nil {
		return d, err
	}
	return d, a.finishUpload(session, d.Digest, bytes.NewReader(content))
}

// pushManifest puts content under a tag or digest.
func (a *api) pushManifest(repo, ref, mediaType string, content []byte) (descriptor, error) {
	_, err := a.send("PUT", "/v2/"+repo+"/manifests/"+ref, bytes.NewReader(content), []string{"Content-Type", mediaType}, 201)
	return descriptor{mediaType, digestOf(content), int64(len(content))}, err
}

// startUpload opens an upload session and returns its path.
func (a *api) startUpload(repo string) (string, error) {
	h, err := a.send("POST", "/v2/"+repo+"/blobs/uploads/", nil, nil, 202)
	if err != nil {
		return "", err
	}
	return sessionPath(h)
}

// finishUpload closes a session with content that continues what it has.
func (a *api) finishUpload(session, digest string, rest io.Reader) error {
	sep := "?"
	if strings.Contains(session, "?") {
		sep = "&"
	}
	_, err := a.send("PUT", session+sep+"digest="+digest, rest, []string{"Content-Type", "application/octet-stream"}, 201)
	return err
}

// uploadOffset asks how many bytes of a session the server has.
func (a *api) uploadOffset(session string) (path string, offset int64, err error) {
	h, err := a.send("GET", session, nil, nil, 204)
	if err != nil {
		return "", 0, err
	}
	if path, err = sessionPath(h); err != nil {
		return "", 0, err
	}
	offset, err = rangeEnd(h.Get("Range"))
	return path, offset, err
}

// rangeEnd turns the Range of an upload's answer into a count of bytes. "0-0"
// is what the protocol says for nothing; the tests never send just one byte.
func rangeEnd(header string) (int64, error) {
	if header == "" || header == "0-0" {
		return 0, nil
	}
	var last int64
	if _, err := fmt.Sscanf(header, "0-%d", &last); err != nil {
		return 0, fmt.Errorf("Range %q: %w", header, err)
	}
	return last + 1, nil
}

// sessionPath is a Location without its host: the host changes with a restart.
func sessionPath(h http.Header) (string, error) {
	u, err := url.Parse(h.Get("Location"))
	if err != nil || u.Path == "" {
		return "", fmt.Errorf("Location %q: %v", h.Get("Location"), err)
	}
	return u.RequestURI(), nil
}

func digestOf(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }
