package test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// origin is a real registry that caches stand before.
type origin struct {
	*place
	url  string
	path string // of its repositories, in the cache's upstream
	stop func()
}

// startDistribution runs the registry of that name, which has no referrers API.
// With remote, it is a cache of that registry itself.
func startDistribution(t *testing.T, remote string, as *place) *origin {
	t.Helper()
	c := newClient(t, "registry")
	address := freeAddress(t)
	config := map[string]any{
		"version": "0.1", "log": map[string]any{"level": "error", "accesslog": map[string]any{"disabled": true}},
		"http":    map[string]any{"addr": address},
		"storage": map[string]any{"filesystem": map[string]any{"rootdirectory": c.home + "/store"}, "delete": map[string]any{"enabled": true}},
	}
	if remote != "" {
		proxy := map[string]any{"remoteurl": remote}
		if as.user != "" {
			proxy["username"], proxy["password"] = as.user, as.secret
		}
		config["proxy"] = proxy
	}
	log := &logBook{ready: make(chan string, 1)}
	cmd := exec.Command(c.path, "serve", c.file("config.yml", asJSON(config)))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	stop := func() { cmd.Process.Kill(); <-ended }
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", address, log.tail())
		}
	})
	for end := time.Now().Add(patienceOfTest); ; time.Sleep(50 * time.Millisecond) {
		if res, err := http.Get("http://" + address + "/v2/"); err == nil {
			res.Body.Close()
			break
		}
		select {
		case <-ended:
			t.Fatalf("registry serve ended:\n%s", log.tail())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("registry serve does not answer:\n%s", log.tail())
		}
	}
	return &origin{place: &place{api: newAPI("http://" + address)}, url: "http://" + address, stop: stop}
}

// startBerth runs one that asks nobody to log in, with this configuration.
func startBerth(t *testing.T, config string) *origin {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "berth.yaml")
	write(t, file, config)
	s, err := launchWith(filepath.Join(dir, "data"), "127.0.0.1:0", file)
	if err != nil {
		t.Fatal(err)
	}
	endWith(t, s)
	return &origin{place: &place{api: s.api}, url: s.base, stop: s.kill}
}

// launchWith is start at an address and with a configuration file.
func launchWith(data, address, file string) (*server, error) {
	s := &server{log: &logBook{ready: make(chan string, 1)}, done: make(chan struct{})}
	s.cmd = berth("serve", "--config", file, "--listen", address, "--data", data)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	select {
	case base := <-s.log.ready:
		s.api = newAPI(base)
		return s, nil
	case <-s.done:
		return nil, fmt.Errorf("berth serve ended: %v\n%s", s.err, s.log.tail())
	case <-time.After(30 * time.Second):
		s.kill()
		return nil, fmt.Errorf("berth serve printed no address for 30 s\n%s", s.log.tail())
	}
}

// ofOrigin is a proxy before a registry of this machine. All that belongs to an
// image comes with it.
func ofOrigin(o *origin) spec {
	return spec{"upstreams": []string{o.url}, "networks": []string{"127.0.0.0/8"},
		"tags": spec{"ttl": "1ms", "negative": "1ms"}, "referrers": spec{"ttl": "1ms", "prefetch": []string{"*", "cosign"}}}
}

// origins are the real registries that all clients are tried with: each stands
// behind a proxy of its name in the Berth of the test.
func origins(t *testing.T) map[string]*origin {
	t.Helper()
	behind := startDistribution(t, "", nil)
	inner := startBerth(t, proxies(map[string]spec{"inner": ofOrigin(behind)}))
	inner.path = "inner/"
	chain := &origin{place: behind.place, url: inner.url, path: inner.path, stop: inner.stop}
	return map[string]*origin{"distribution": startDistribution(t, "", nil), "berth": startBerth(t, ""), "chain": chain}
}
