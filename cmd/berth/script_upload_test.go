package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

const (
	uploadRepo = "/v2/team/app/blobs/"
	uploadSize = 1 << 20
)

// upload is a blob on its way.
type upload struct {
	location string // path of the session
	rest     *io.PipeWriter
	answer   chan error // of the running PATCH
}

// upload begin starts a session and a request that sends the first half of a
// blob; it returns once the server reads it.
//
// upload half sends the other half in the same request and wants it accepted.
//
// upload broken wants that request to have been cut off by the server's end.
//
// upload stalled sends nothing more and wants the request refused with 408.
//
// upload finish sends what the server does not have, commits, and reads back.
// Where it went on is said on stdout.
func uploadCommand(ts *testscript.TestScript, neg bool, args []string) {
	steps := map[string]func(*state, io.Writer) error{
		"begin": uploadBegin, "half": uploadHalf, "broken": uploadBroken, "stalled": uploadStalled, "finish": uploadFinish,
	}
	usage(ts, !neg && len(args) == 1 && steps[args[0]] != nil, "upload begin|half|broken|stalled|finish")
	ts.Check(steps[args[0]](stateOf(ts), ts.Stdout()))
}

// content is the blob: bytes that no shift leaves as they are.
func content() []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < uploadSize; i++ {
		fmt.Fprintf(&b, "%08d\n", i)
	}
	return b.Bytes()[:uploadSize]
}

func uploadBegin(st *state, _ io.Writer) error {
	resp, err := st.send(http.MethodPost, uploadRepo+"uploads/", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	u := &upload{location: resp.Header.Get("Location"), answer: make(chan error, 1)}
	body, w := io.Pipe()
	u.rest = w
	go func() {
		_, err := st.send(http.MethodPatch, u.location, body, http.StatusAccepted)
		body.CloseWithError(io.ErrClosedPipe) // whoever still writes must not wait
		u.answer <- err
	}()
	st.upload = u
	_, err = w.Write(content()[:uploadSize/2])
	return err
}

func uploadHalf(st *state, _ io.Writer) error {
	_, err := st.upload.rest.Write(content()[uploadSize/2:])
	if err != nil {
		return err
	}
	st.upload.rest.Close()
	return st.upload.wait()
}

func uploadBroken(st *state, _ io.Writer) error {
	<-st.server.done
	// The transport tells of a lost connection only once the body ends as well.
	st.upload.rest.CloseWithError(io.ErrUnexpectedEOF)
	if err := st.upload.wait(); err == nil {
		return errors.New("the request was answered as if it were whole")
	}
	return nil
}

// wait is the end of the running PATCH.
func (u *upload) wait() error {
	select {
	case err := <-u.answer:
		return err
	case <-time.After(patience):
		return fmt.Errorf("no answer within %v", patience)
	}
}

func uploadStalled(st *state, _ io.Writer) error {
	var status *statusError
	select {
	case err := <-st.upload.answer:
		if !errors.As(err, &status) || status.got != http.StatusRequestTimeout {
			return fmt.Errorf("the request that brought nothing more: %v, want 408", err)
		}
		return nil
	case <-time.After(patience):
		return fmt.Errorf("the request that brings nothing more is not cut off")
	}
}

func uploadFinish(st *state, out io.Writer) error {
	resp, err := st.send(http.MethodGet, st.upload.location, nil, http.StatusNoContent)
	if err != nil {
		return err
	}
	var have int
	if _, err := fmt.Sscanf(resp.Header.Get("Range"), "0-%d", &have); err != nil || have >= uploadSize {
		return fmt.Errorf("range %q of the session: %v", resp.Header.Get("Range"), err)
	}
	if have > 0 {
		have++ // a range names the last byte; "0-0" is said of none
	}
	fmt.Fprintf(out, "resumed at byte %d\n", have)
	if have < uploadSize {
		resp, err = st.send(http.MethodPatch, st.upload.location, bytes.NewReader(content()[have:]), http.StatusAccepted)
		if err != nil {
			return err
		}
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(content()))
	separator := "?"
	if strings.Contains(resp.Header.Get("Location"), "?") {
		separator = "&"
	}
	if _, err := st.send(http.MethodPut, resp.Header.Get("Location")+separator+"digest="+digest, nil, http.StatusCreated); err != nil {
		return err
	}
	resp, err = st.send(http.MethodGet, uploadRepo+digest, nil, http.StatusOK)
	if err != nil {
		return err
	}
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, content()) {
		return fmt.Errorf("the blob came back with %d bytes, not as it was sent: %v", len(got), err)
	}
	return nil
}

// send sends a request and wants that status. The body of the answer is in
// memory. A request's body is sent only when the server asks for it.
func (st *state) send(method, path string, body io.Reader, want int) (*http.Response, error) {
	req, err := http.NewRequest(method, st.server.url+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set("Expect", "100-continue")
	}
	client := newClient()
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		return nil, &statusError{method + " " + path, resp.StatusCode, want, string(answer)}
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	return resp, nil
}

// statusError is an answer with another status than was wanted.
type statusError struct {
	request   string
	got, want int
	body      string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: %d, not %d: %s", e.request, e.got, e.want, e.body)
}
