package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// http [-u USER:PASSWORD] METHOD PATH STATUS sends a request on a connection of
// its own and wants that status. The body goes to stdout; protocol, name in the
// certificate and header go to stderr.
func httpCommand(ts *testscript.TestScript, neg bool, args []string) {
	const form = "http [-u USER:PASSWORD] METHOD PATH STATUS"
	login := ""
	if len(args) > 2 && args[0] == "-u" {
		login, args = args[1], args[2:]
	}
	usage(ts, !neg && len(args) == 3, form)
	want, err := strconv.Atoi(args[2])
	usage(ts, err == nil, form)

	req, err := http.NewRequest(args[0], stateOf(ts).server.url+args[1], nil)
	ts.Check(err)
	if user, password, ok := strings.Cut(login, ":"); ok {
		req.SetBasicAuth(user, password)
	}
	resp := roundTrip(ts, req)
	fmt.Fprintf(ts.Stderr(), "protocol %s\n", resp.Proto)
	if resp.TLS != nil {
		fmt.Fprintf(ts.Stderr(), "certificate of %s\n", resp.TLS.PeerCertificates[0].Subject.CommonName)
	}
	ts.Check(resp.Header.Write(ts.Stderr()))
	if resp.StatusCode != want {
		ts.Fatalf("status %s, not %d", resp.Status, want)
	}
}

// header BYTES STATUS sends a request with that much header and wants that
// status. The answer goes to stdout.
func headerCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "header BYTES STATUS")
	size, err := strconv.Atoi(args[0])
	ts.Check(err)
	conn, err := net.Dial("tcp", stateOf(ts).server.addr)
	ts.Check(err)
	defer conn.Close()
	ts.Check(conn.SetDeadline(time.Now().Add(patience)))
	// A server that has read enough answers before it was sent everything.
	go fmt.Fprintf(conn, "GET /v2/ HTTP/1.1\r\nHost: berth\r\nConnection: close\r\nX-Filler: %s\r\n\r\n", strings.Repeat("x", size))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	ts.Check(err)
	defer resp.Body.Close()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
	if strconv.Itoa(resp.StatusCode) != args[1] {
		ts.Fatalf("status %s, not %s", resp.Status, args[1])
	}
}

// newClient is a client that trusts every server: the scripts look at the
// certificate themselves.
func newClient() *http.Client {
	return &http.Client{Timeout: 2 * patience, Transport: &http.Transport{
		TLSClientConfig:       &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2:     true,
		ExpectContinueTimeout: patience,
	}}
}

// certificate NAME CERT KEY writes a new certificate for NAME and its key.
func certificateCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 3, "certificate NAME CERT KEY")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: args[0]},
		DNSNames:     []string{args[0]},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	writePEM(ts, args[1], "CERTIFICATE", cert)
	writePEM(ts, args[2], "PRIVATE KEY", private)
}

func writePEM(ts *testscript.TestScript, name, kind string, der []byte) {
	ts.Check(os.WriteFile(ts.MkAbs(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// secret NAME FILE sets NAME to the key that a file, or stdout, tells of.
func secretCommand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "secret NAME FILE")
	found := keyText.FindAllString(ts.ReadFile(args[1]), -1)
	if len(found) != 1 {
		ts.Fatalf("%s tells of %d keys", args[1], len(found))
	}
	ts.Setenv(args[0], found[0])
}

// keyText matches a key of a user or project.
var keyText = regexp.MustCompile(`\bberth_[up]_[0-9A-Za-z]{49}\b`)

// roundTrip sends a request on a connection of its own, with LOGIN as its
// USER:PASSWORD where that is set, and prints the body of the answer, which it
// has closed.
func roundTrip(ts *testscript.TestScript, req *http.Request) *http.Response {
	if user, password, ok := strings.Cut(ts.Getenv("LOGIN"), ":"); ok && req.Header.Get("Authorization") == "" {
		req.SetBasicAuth(user, password)
	}
	client := newClient()
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
	return resp
}
