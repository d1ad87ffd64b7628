package test

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// images is a repository with all that clients ask for, and where a test looks at
// it: in its own registry, or through a cache.
type images struct {
	*place
	name string
	made string     // host and name that it was signed under
	app  descriptor // tag v1; signed, attested, with an SBOM
	both descriptor // tag both, an index
}

// at is the reference of a tag or digest of it.
func (m *images) at(ref string) string {
	return (&repo{api: m.api, name: m.name}).at(ref)
}

// through is the same content by another way.
func (m *images) through(p *place, prefix string) *images {
	other := *m
	other.place, other.name = p, prefix+m.name
	return &other
}

// plainly takes out of what a client says where it asked, so that it can be held
// against what it says elsewhere.
func (m *images) plainly(text string) string {
	return strings.NewReplacer(m.host()+"/"+m.name, "REPOSITORY", m.made, "REPOSITORY").Replace(strings.TrimSpace(text))
}

// signer is cosign with a key.
func signer(t *testing.T, p *place) *client {
	t.Helper()
	cosign := newClient(t, "cosign").at(p)
	cosign.env = append(cosign.env, "COSIGN_PASSWORD=x", "COSIGN_EXPERIMENTAL=1",
		"TUF_MIRROR=http://127.0.0.1:1", "TUF_ROOT="+filepath.Join(cosign.home, "tuf"))
	return cosign
}

var signModes = map[string][2]string{ // how it is signed, and how that is verified
	"tag":       {"--registry-referrers-mode=legacy", "--experimental-oci11=false"},
	"referrers": {"--registry-referrers-mode=oci-1-1", "--experimental-oci11=true"},
}

// fill makes the content in a registry. keys are the folder of cosign's.
func fillOrigin(t *testing.T, p *place, name string, keys *client) *images {
	t.Helper()
	m := &images{place: p, name: name, made: p.host() + "/" + name}
	r := &repo{t, p.api, name}
	m.app = r.pushImage("v1", 7000, 7001)
	source := multiArch(t)
	newClient(t, "skopeo").at(p).run("copy", "--all", "--dest-tls-verify=false", source, "docker://"+m.at("both"))
	m.both = r.verify("both")

	for _, mode := range signModes {
		keys.run("sign", "--key", "cosign.key", "--tlog-upload=false", "--allow-http-registry", "-y", mode[0], m.at(m.app.Digest))
	}
	keys.run("attest", "--key", "cosign.key", "--tlog-upload=false", "--allow-http-registry", "-y", "--type", "custom",
		"--predicate", keys.file("predicate.json", []byte(`{"built":"here"}`)), m.at(m.app.Digest))
	repository := p.oras(orasRepo(t, r))
	subject := ocispec.Descriptor{MediaType: m.app.MediaType, Digest: digest.Digest(m.app.Digest), Size: m.app.Size}
	orasPack(t, repository, "application/x-sbom", &subject, 7002)

	helm := newClient(t, "helm").at(p)
	helm.file("tiny/Chart.yaml", []byte("apiVersion: v2\nname: tiny\nversion: 0.1.0\n"))
	helm.run("package", "tiny")
	helm.run("push", "--plain-http", "tiny-0.1.0.tgz", "oci://"+p.host()+"/"+name)
	return m
}

// asks is what a client does with the content, and what it says.
type asks struct {
	name string
	say  func(t *testing.T, m *images, keys *client) string
}

// readers are clients whose words about the content are the same wherever it is.
var readers = []asks{
	{"crane", func(t *testing.T, m *images, _ *client) string {
		crane := newClient(t, "crane").at(m.place)
		crane.run("validate", "--remote", m.at("v1"))
		crane.run("pull", "--format=oci", m.at("both"), filepath.Join(crane.home, "layout"))
		return crane.run("digest", m.at("v1")) + crane.run("manifest", m.at("both")) + crane.run("config", m.at("v1"))
	}},
	{"skopeo", func(t *testing.T, m *images, _ *client) string {
		skopeo := newClient(t, "skopeo").at(m.place)
		layout := "oci:" + filepath.Join(skopeo.home, "layout") + ":both"
		skopeo.run("copy", "--all", "--src-tls-verify=false", "docker://"+m.at("both"), layout)
		return string(rawManifest(skopeo, layout)) + skopeo.run("inspect", "--config", "--tls-verify=false", "docker://"+m.at("v1"))
	}},
	{"podman", func(t *testing.T, m *images, _ *client) string {
		podman := newPodman(t).at(m.place)
		podman.run("pull", "--tls-verify=false", m.at("v1"))
		return podman.run("image", "inspect", "-f", "{{.Id}} {{.RootFS.Layers}} {{.Digest}}", m.at("v1"))
	}},
	{"regctl", func(t *testing.T, m *images, _ *client) string {
		regctl := newRegctl(t, m.place)
		list := strings.Fields(regctl.run("artifact", "list", "--format", "{{range .Descriptors}}{{.Digest}} {{.ArtifactType}}\n{{end}}", m.at("v1")))
		slices.Sort(list)
		sboms := regctl.run("artifact", "list", "--filter-artifact-type", "application/x-sbom", "--format", "{{range .Descriptors}}{{.Digest}} {{.Size}}\n{{end}}", m.at("v1"))
		tree := strings.Split(m.plainly(regctl.run("artifact", "tree", m.at("v1"))), "\n")
		slices.Sort(tree)
		return fmt.Sprint(list, sboms, tree)
	}},
	{"oras", func(t *testing.T, m *images, _ *client) string {
		note(t, "oras-go", moduleVersion(t, "oras.land/oras-go/v2"))
		repository := m.oras(orasRepo(t, &repo{t, m.api, m.name}))
		subject := ocispec.Descriptor{MediaType: m.app.MediaType, Digest: digest.Digest(m.app.Digest), Size: m.app.Size}
		var all []string
		for _, artifactType := range []string{"", "application/x-sbom", "application/x-none"} {
			for _, d := range orasReferrers(t, repository, subject, artifactType) {
				all = append(all, fmt.Sprint(artifactType, " ", d.Digest, " ", d.Size, " ", d.MediaType, " ", d.ArtifactType))
			}
		}
		slices.Sort(all)
		return strings.Join(all, "\n")
	}},
	{"cosign", func(t *testing.T, m *images, keys *client) string {
		return strings.Join(verified(t, m, keys), "\n")
	}},
	{"helm", func(t *testing.T, m *images, _ *client) string {
		helm := newClient(t, "helm").at(m.place)
		helm.file("pulled/keep", nil)
		chart := "oci://" + m.host() + "/" + m.name + "/tiny"
		helm.run("pull", "--plain-http", chart, "--version", "0.1.0", "-d", filepath.Join(helm.home, "pulled"))
		return digestOf([]byte(readFile(t, helm.home, "pulled", "tiny-0.1.0.tgz"))) + helm.run("show", "chart", "--plain-http", chart, "--version", "0.1.0")
	}},
}

// verified is what cosign says of each kind of signature of the image.
func verified(t *testing.T, m *images, keys *client) (said []string) {
	t.Helper()
	cosign := signer(t, m.place)
	cosign.file("cosign.pub", []byte(readFile(t, keys.home, "cosign.pub")))
	common := []string{"--key", "cosign.pub", "--insecure-ignore-tlog=true", "--allow-http-registry"}
	for _, kind := range []string{"tag", "referrers"} {
		said = append(said, sortedJSON(t, cosign.run(append([]string{"verify", signModes[kind][1], m.at(m.app.Digest)}, common...)...)))
	}
	return append(said, sortedJSON(t, cosign.run(append([]string{"verify-attestation", "--type", "custom", m.at(m.app.Digest)}, common...)...)))
}

// sortedJSON are the lines of what cosign prints, or the elements of its list, in
// an order that does not depend on that of the registry.
func sortedJSON(t *testing.T, text string) string {
	t.Helper()
	var list []json.RawMessage
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		lines := strings.Split(text, "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	var elements []string
	for _, e := range list {
		elements = append(elements, string(e))
	}
	slices.Sort(elements)
	return strings.Join(elements, "\n")
}

func newRegctl(t *testing.T, p *place) *client {
	t.Helper()
	regctl := newClient(t, "regctl").at(p)
	regctl.env = append(regctl.env, "REGCTL_CONFIG="+regctl.file("regctl.json", []byte("{}")))
	regctl.run("registry", "set", "--skip-check", "--tls", "disabled", p.host())
	return regctl
}

// TestProxyClients: what real clients find through a cache is what they find at
// the upstream: while that is there, when it is gone, and with what was signed
// here since. The upstreams are distribution, another Berth, and a Berth that is
// a cache of distribution.
func TestProxyClients(t *testing.T) {
	t.Run("one process", func(t *testing.T) { proxyClients(t, oneProcess) })
	t.Run("replicas", func(t *testing.T) { proxyClients(t, twoReplicas) })
}

func proxyClients(t *testing.T, begin func(t *testing.T, dir, config string) *caching) {
	behind := origins(t)
	specs := map[string]spec{}
	for name, o := range behind {
		specs[name] = ofOrigin(o)
	}
	c := begin(t, roomFor(t), proxies(specs))
	for _, name := range []string{"distribution", "berth", "chain"} {
		t.Run(name, func(t *testing.T) {
			o := behind[name]
			keys := signer(t, o.place)
			keys.run("generate-key-pair")
			m := fillOrigin(t, o.place, "clients/app", keys)
			here := m.through(c.place(), name+"/"+o.path)
			want := map[string]string{}
			for _, r := range readers {
				t.Run(r.name, func(t *testing.T) {
					want[r.name] = m.plainly(r.say(t, m, keys))
					equal(t, "through the cache", here.plainly(r.say(t, here, keys)), want[r.name])
				})
			}
			if t.Failed() {
				return
			}
			own := signHere(t, here)
			t.Run("signed here", func(t *testing.T) {
				for _, r := range readers {
					now := here.plainly(r.say(t, here, keys))
					if r.name == "regctl" || r.name == "oras" { // they list our signature, too
						if len(strings.Fields(now)) <= len(strings.Fields(want[r.name])) {
							t.Errorf("%s does not find what was signed here: %s", r.name, now)
						}
						want[r.name] = now
					}
					equal(t, r.name, now, want[r.name])
				}
				equal(t, "what our signatures did to the upstream", m.plainly(readers[0].say(t, m, keys)), want["crane"])
			})
			if t.Failed() {
				return
			}
			(&repo{t, here.api, here.name}).verify("both") // all platforms, for what comes
			o.stop()
			for _, r := range readers {
				t.Run(r.name+" offline", func(t *testing.T) {
					equal(t, "through the cache", here.plainly(r.say(t, here, keys)), want[r.name])
				})
			}
			t.Run("our signatures offline", func(t *testing.T) { verifyHere(t, here, own) })
		})
	}
}

// signHere signs an image in the cache with a key of our own, in both ways.
func signHere(t *testing.T, here *images) (own *client) {
	t.Helper()
	own = signer(t, here.place)
	own.run("generate-key-pair")
	for _, mode := range signModes {
		own.fails("verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--allow-http-registry", mode[1], here.at(here.app.Digest))
	}
	for _, mode := range signModes {
		own.run("sign", "--key", "cosign.key", "--tlog-upload=false", "--allow-http-registry", "-y", mode[0], here.at(here.app.Digest))
	}
	verifyHere(t, here, own)
	return own
}

// verifyHere wants the signatures of our own to be good.
func verifyHere(t *testing.T, here *images, own *client) {
	t.Helper()
	for _, mode := range signModes {
		own.run("verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--allow-http-registry", mode[1], here.at(here.app.Digest))
	}
}

// TestProxyPrefetch: an image was pulled, and nothing else was ever asked for. Its
// signatures and attestations are here when the upstream is gone.
func TestProxyPrefetch(t *testing.T) {
	for _, name := range []string{"distribution", "berth"} {
		t.Run(name, func(t *testing.T) {
			o := origins(t)[name]
			keys := signer(t, o.place)
			keys.run("generate-key-pair")
			m := fillOrigin(t, o.place, "clients/app", keys)
			want := strings.Join(verified(t, m, keys), "\n")
			c := oneProcess(t, filepath.Join(t.TempDir(), "data"), proxies(map[string]spec{"hub": ofOrigin(o)}))
			here := m.through(c.place(), "hub/")
			newClient(t, "crane").at(here.place).run("validate", "--remote", here.at("v1"))
			db := c.rows
			for end := time.Now().Add(patienceOfTest); ; time.Sleep(100 * time.Millisecond) {
				var done bool
				err := db.QueryRow("SELECT prefetched FROM proxy_manifests WHERE repository = $1 AND digest = $2", here.name, here.app.Digest).Scan(&done)
				if err != nil {
					t.Fatal(err)
				}
				if done {
					break
				}
				if time.Now().After(end) {
					t.Fatal("what belongs to the image did not come")
				}
			}
			o.stop()
			equal(t, "what cosign says", strings.Join(verified(t, here, keys), "\n"), want)
			for _, r := range readers {
				if r.name == "oras" || r.name == "regctl" {
					t.Run(r.name, func(t *testing.T) { r.say(t, here, keys) })
				}
			}
		})
	}
}

// TestProxyMirrors: daemons that have Berth as a mirror, set up as docs/proxy.md
// says, pull what they know by the upstream's name. First nobody is asked to log
// in, then everybody, but for one public project: dockerd shows no credentials to
// mirrors.
func TestProxyMirrors(t *testing.T) {
	t.Run("open", func(t *testing.T) {
		proxyMirrors(t, func(t *testing.T, config string) *place {
			address := freeAddress(t)
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			file := filepath.Join(dir, "berth.yaml")
			write(t, file, strings.ReplaceAll(config, "PORT", port))
			s, err := launchWith(filepath.Join(dir, "data"), address, file)
			if err != nil {
				t.Fatal(err)
			}
			endWith(t, s)
			return &place{api: s.api}
		})
	})
	t.Run("with log-in", func(t *testing.T) {
		proxyMirrors(t, func(t *testing.T, config string) *place {
			c := oneProcess(t, filepath.Join(t.TempDir(), "data"), config)
			(&cacheCheck{t: t, c: c}).berth("", "project", "set", "docker.io", "--visibility", "public")
			return c.place()
		})
	})
}

func proxyMirrors(t *testing.T, begin func(t *testing.T, config string) *place) {
	o := startDistribution(t, "", nil)
	r := &repo{t, o.api, "library/app"}
	image := r.pushImage("v1", 7100, 7101)
	other := (&repo{t, o.api, "team/app"}).pushImage("v1", 7102)
	hub := spec{"hosts": []string{"localhost:PORT"}}
	at := begin(t, proxies(map[string]spec{"docker.io": ofOrigin(o).with(hub), "registry.example.test": ofOrigin(o)}))
	_, port, err := net.SplitHostPort(at.host())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]descriptor{"docker.io/library/app:v1": image, "docker.io/team/app:v1": other, "registry.example.test/team/app:v1": other}

	t.Run("docker", func(t *testing.T) {
		docker := newDocker(t, "--registry-mirror", "http://localhost:"+port)
		for name, want := range map[string]descriptor{"app:v1": image, "team/app:v1": other} {
			docker.run("pull", name)
			equal(t, "repo digest of "+name, docker.run("image", "inspect", "-f", "{{index .RepoDigests 0}}", name), strings.TrimSuffix(name, ":v1")+"@"+want.Digest)
		}
		t.Run("build", func(t *testing.T) { // BuildKit, as it is in the daemon
			docker.file("context/Dockerfile", []byte("FROM team/app:v1\nLABEL a=b\n"))
			docker.path = "/usr/bin/docker" // others need a plugin for it
			docker.env = append(slices.DeleteFunc(docker.env, func(s string) bool { return strings.HasPrefix(s, "DOCKER_BUILDKIT=") }), "DOCKER_BUILDKIT=1")
			docker.run("build", "--pull", "--network=none", "-t", "built", filepath.Join(docker.home, "context"))
		})
	})
	t.Run("containerd", func(t *testing.T) {
		ctr := newCtr(t)
		for folder, example := range map[string]string{"all/_default": "containerd/_default/hosts.toml", "one/docker.io": "containerd/docker.io/hosts.toml"} {
			text := readExample(t, example, at.host())
			if at.user != "" {
				text = strings.ReplaceAll(text, "# [host", "[host")
				text = strings.ReplaceAll(text, "#   authorization", "authorization")
				text = strings.ReplaceAll(text, "Basic …", basicHeader(at.user, at.secret))
			}
			ctr.file(folder+"/hosts.toml", []byte(text))
		}
		for name, want := range names {
			pull := func(folder string) {
				t.Helper()
				ctr.run("images", "pull", "--hosts-dir", filepath.Join(ctr.home, folder), "--snapshotter", "native", name)
				if list := ctr.run("images", "ls", "name=="+name); !strings.Contains(list, want.Digest) {
					t.Fatalf("ctr images ls lacks %s:\n%s", want.Digest, list)
				}
				ctr.run("images", "rm", "--sync", name)
			}
			pull("all")
			if strings.HasPrefix(name, "docker.io/") {
				pull("one")
			}
		}
	})
	t.Run("podman", func(t *testing.T) {
		podman := newPodman(t).at(at)
		mirrors := podman.file("registries.conf", []byte(readExample(t, "podman/registries.conf", at.host())))
		podman.env = append(podman.env, "CONTAINERS_REGISTRIES_CONF="+mirrors)
		for _, name := range []string{"docker.io/library/app:v1", "docker.io/team/app:v1"} {
			podman.run("pull", name)
			equal(t, "digest of "+name, podman.run("image", "inspect", "-f", "{{.Digest}}", name), names[name].Digest)
		}
		raw := rawManifest(newClient(t, "skopeo", "--registries-conf", mirrors).at(at), "docker://docker.io/library/app:v1")
		equal(t, "digest that skopeo finds", digestOf(raw), image.Digest)
	})
	o.stop()
	t.Run("offline", func(t *testing.T) {
		docker := newDocker(t, "--registry-mirror", "http://localhost:"+port)
		docker.run("pull", "app:v1")
		equal(t, "repo digest", docker.run("image", "inspect", "-f", "{{index .RepoDigests 0}}", "app:v1"), "app@"+image.Digest)
	})
}

// readExample is a file of examples/proxy for a Berth at this address.
func readExample(t *testing.T, name, address string) string {
	t.Helper()
	text := readFile(t, "../examples/proxy", name)
	const there = "https://berth.example.com"
	if !strings.Contains(text, strings.TrimPrefix(there, "https://")) {
		t.Fatalf("%s names no berth.example.com", name)
	}
	text = strings.ReplaceAll(text, there, "http://"+address)
	text = strings.ReplaceAll(text, "# insecure = true", "insecure = true")
	return strings.ReplaceAll(text, "berth.example.com", address)
}

// TestProxyOfOurs: distribution, as a cache of its own, stands before Berth's, and
// finds what the upstream has.
func TestProxyOfOurs(t *testing.T) {
	up := startDistribution(t, "", nil)
	r := &repo{t, up.api, "team/app"}
	image := r.pushImage("v1", 7200, 7201)
	berth := oneProcess(t, filepath.Join(t.TempDir(), "data"), proxies(map[string]spec{"hub": ofOrigin(up)}))
	outer := startDistribution(t, berth.entry, berth.place())
	(&repo{t, outer.api, "hub/team/app"}).same("v1", image.Digest)
	up.stop()
	(&repo{t, outer.api, "hub/team/app"}).same("v1", image.Digest)
	another := startDistribution(t, berth.entry, berth.place()) // that has nothing itself
	(&repo{t, another.api, "hub/team/app"}).same("v1", image.Digest)
	newClient(t, "crane").run("validate", "--remote", another.host()+"/hub/team/app:v1")
}
