package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// loginClient is how one client logs in, pulls and pushes. Each function
// returns all that the client says, and whether it failed.
type loginClient struct {
	login func(host string, c credential) (said string, err error)
	pull  func(ref string) (said string, err error)
	push  func(ref string) (said string, err error)

	// What the client says of a wrong secret, and of a pull and a push that the
	// credential has no right to. Some only find out when they pull.
	wrong, noPull, noPush string
	lateLogin             bool
}

// team is a server with a private project that alice may write to and bob may
// read, each with a key, and of which there are keys; and with one that neither
// may see.
type team struct {
	*guarded
	alice, bob          credential
	aliceKey, bobReader credential
	projectKey          credential
}

func newTeam(t *testing.T, settings ...string) *team {
	t.Helper()
	w := &team{guarded: newGuarded(t, settings...)}
	w.berth("project", "create", "acme", "--visibility", "private")
	w.berth("project", "create", "secret", "--visibility", "private")
	w.alice, w.bob = w.user("alice"), w.user("bob")
	w.berth("member", "add", "acme", "alice", "--role", "writer")
	w.berth("member", "add", "acme", "bob", "--role", "reader")
	w.aliceKey = w.key("laptop", "--user", "alice")
	w.bobReader = w.key("laptop", "--user", "bob", "--role", "reader")
	w.projectKey = w.key("ci", "--project", "acme", "--role", "writer")
	return w
}

// tryClient logs in with every kind of credential, right and wrong, and wants
// of pulls and pushes what the credential is worth.
func tryClient(t *testing.T, w *team, c *loginClient) {
	t.Helper()
	repo := "acme/" + strings.ToLower(strings.TrimPrefix(t.Name(), "TestLogin"))
	for _, l := range []struct {
		kind       string
		credential credential
		writes     bool
	}{
		{"password", w.alice, true}, // first: readers pull what it pushes
		{"user-key", w.aliceKey, true},
		{"project-key", w.projectKey, true},
		{"password-of-reader", w.bob, false},
		{"user-key-of-reader", w.bobReader, false},
	} {
		tr := &trial{t, w, c, l.kind, l.credential, w.host() + "/" + repo + ":1.0.0-"} // of the form that helm wants
		if l.writes {
			tr.asWriter()
		} else {
			tr.asReader()
		}
		tr.asStranger()
	}
	w.repo(w.root(), repo).hasTags("1.0.0-password", "1.0.0-project-key", "1.0.0-user-key")
}

// trial is one kind of credential in one client.
type trial struct {
	t          *testing.T
	w          *team
	c          *loginClient
	kind       string
	credential credential
	ref        string // of an image, without the end of its tag
}

func (tr *trial) asWriter() {
	tr.t.Helper()
	said, err := tr.c.login(tr.w.host(), tr.w.wrong(tr.credential))
	if tr.c.lateLogin {
		tr.works("log-in that nobody checks", said, err)
		said, err = tr.c.pull(tr.ref + tr.kind)
	}
	tr.fails("wrong secret", tr.c.wrong, said, err)
	said, err = tr.c.login(tr.w.host(), tr.credential)
	tr.works("log-in", said, err)
	said, err = tr.c.push(tr.ref + tr.kind)
	tr.works("push", said, err)
	said, err = tr.c.pull(tr.ref + tr.kind)
	tr.works("pull", said, err)
}

func (tr *trial) asReader() {
	tr.t.Helper()
	said, err := tr.c.login(tr.w.host(), tr.credential)
	tr.works("log-in", said, err)
	said, err = tr.c.pull(tr.ref + "password")
	tr.works("pull", said, err)
	said, err = tr.c.push(tr.ref + tr.kind)
	tr.fails("push", tr.c.noPush, said, err)
}

// asStranger tries a project in which none of the credentials has a role.
func (tr *trial) asStranger() {
	tr.t.Helper()
	ref := strings.Replace(tr.ref, "/acme/", "/secret/", 1) + tr.kind
	said, err := tr.c.pull(ref)
	tr.fails("pull from a secret project", tr.c.noPull, said, err)
	said, err = tr.c.push(ref)
	tr.fails("push to a secret project", tr.c.noPush, said, err)
}

func (tr *trial) works(what, said string, err error) {
	tr.t.Helper()
	if err != nil {
		tr.t.Fatalf("%s, %s: %v\n%s", tr.kind, what, err, said)
	}
}

// fails wants the client to say what it says then, and not the secret.
func (tr *trial) fails(what, want, said string, err error) {
	tr.t.Helper()
	if err == nil || !strings.Contains(said, want) {
		tr.t.Errorf("%s, %s: %v, want %q in:\n%s", tr.kind, what, err, want, said)
	}
	if strings.Contains(said, tr.credential.secret) {
		tr.t.Errorf("%s, %s: it tells the secret:\n%s", tr.kind, what, said)
	}
}

// all is what a run says, on whatever stream.
func (c *client) all(args ...string) (said string, err error) {
	stdout, stderr, err := c.try(args...)
	return stdout + stderr, err
}

func dockerLogin(docker *client) *loginClient {
	docker.run("build", "-t", "local", docker.buildContext(1100))
	return &loginClient{
		login: func(host string, c credential) (string, error) {
			return docker.all("login", "-u", c.user, "-p", c.secret, host)
		},
		pull: func(ref string) (string, error) { return docker.all("pull", ref) },
		push: func(ref string) (string, error) {
			docker.run("tag", "local", ref)
			return docker.all("push", ref)
		},
		wrong: "wrong user name, password or token", noPull: "name unknown", noPush: "denied",
	}
}

func TestLoginDocker(t *testing.T) {
	w, docker := newTeam(t), newDocker(t)
	tryClient(t, w, dockerLogin(docker))
}

// TestLoginDockerIdentityToken: where the server gives refresh tokens, docker
// keeps one of them and not the password.
func TestLoginDockerIdentityToken(t *testing.T) {
	w, docker := newTeam(t, "BERTH_AUTH_REFRESH_TOKENS=true"), newDocker(t)
	tryClient(t, w, dockerLogin(docker))

	docker.run("login", "-u", w.alice.user, "-p", w.alice.secret, w.host())
	kept := identityToken(t, docker, w.host())
	w.hide(kept)
	if text := readFile(t, docker.home, "config.json"); strings.Contains(text, w.as(w.alice).http.Transport.(authorized).value[len("Basic "):]) {
		t.Errorf("docker keeps the password: %s", text)
	}
	docker.run("pull", w.host()+"/acme/dockeridentitytoken:1.0.0-password")
	docker.run("push", w.host()+"/acme/dockeridentitytoken:1.0.0-password")

	if list := w.berth("token", "ls", "--all"); !strings.Contains(list, "alice") {
		t.Errorf("berth token ls: %s", list)
	}
	w.berth("user", "end-sessions", "alice")
	if said, err := docker.all("pull", w.host()+"/acme/dockeridentitytoken:1.0.0-password"); err == nil {
		t.Errorf("docker pulls with an identity token that is revoked: %s", said)
	}
	docker.run("login", "-u", w.alice.user, "-p", w.alice.secret, w.host())
	docker.run("pull", w.host()+"/acme/dockeridentitytoken:1.0.0-password")
	w.hide(identityToken(t, docker, w.host()))
}

// identityToken is what docker keeps of a log-in.
func identityToken(t *testing.T, docker *client, host string) string {
	t.Helper()
	var config struct {
		Auths map[string]struct{ IdentityToken string }
	}
	text := readFile(t, docker.home, "config.json")
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	token := config.Auths[host].IdentityToken
	if token == "" {
		t.Fatalf("docker keeps no identity token: %s", text)
	}
	return token
}

func TestLoginPodman(t *testing.T) {
	w, podman := newTeam(t), newPodman(t)
	plain, file := "--tls-verify=false", "--authfile="+filepath.Join(podman.home, "auth.json")
	podman.run("build", "--isolation=chroot", "-t", "local", podman.buildContext(1200))
	tryClient(t, w, &loginClient{
		login: func(host string, c credential) (string, error) {
			return podman.all("login", plain, file, "-u", c.user, "-p", c.secret, host)
		},
		pull:  func(ref string) (string, error) { return podman.all("pull", plain, file, ref) },
		push:  func(ref string) (string, error) { return podman.all("push", plain, file, "local", ref) },
		wrong: "invalid username/password", noPull: "name unknown", noPush: "denied",
	})
}

func TestLoginSkopeo(t *testing.T) {
	w, umoci, skopeo := newTeam(t), newClient(t, "umoci"), newClient(t, "skopeo")
	image := filepath.Join(umoci.home, "images")
	umoci.run("init", "--layout", image)
	umoci.run("new", "--image", image+":v1")
	umoci.run("insert", "--image", image+":v1", umoci.file("data", stuff{1300, 100_000}.bytes()), "/data")
	file := "--authfile=" + filepath.Join(skopeo.home, "auth.json")
	pulled := 0
	tryClient(t, w, &loginClient{
		login: func(host string, c credential) (string, error) {
			return skopeo.all("login", "--tls-verify=false", file, "-u", c.user, "-p", c.secret, host)
		},
		pull: func(ref string) (string, error) {
			pulled++
			return skopeo.all("copy", file, "--src-tls-verify=false", "docker://"+ref, fmt.Sprintf("dir:%s/%d", skopeo.home, pulled))
		},
		push: func(ref string) (string, error) {
			return skopeo.all("copy", file, "--dest-tls-verify=false", "oci:"+image+":v1", "docker://"+ref)
		},
		wrong: "invalid username/password", noPull: "name unknown", noPush: "denied",
	})
}

func TestLoginCrane(t *testing.T) {
	w, crane := newTeam(t), newClient(t, "crane")
	layer := crane.file("layer.tar", layerTar("file", stuff{1400, 100_000}.bytes()))
	tryClient(t, w, &loginClient{
		login: func(host string, c credential) (string, error) {
			return crane.all("auth", "login", host, "-u", c.user, "-p", c.secret)
		},
		pull: func(ref string) (string, error) {
			return crane.all("pull", ref, filepath.Join(crane.home, "pulled.tar"))
		},
		push: func(ref string) (string, error) {
			return crane.all("append", "--oci-empty-base", "-f", layer, "-t", ref)
		},
		wrong: "UNAUTHORIZED: wrong user name, password or token", noPull: "NAME_UNKNOWN", noPush: "DENIED", lateLogin: true,
	})
}

func TestLoginRegctl(t *testing.T) {
	w, regctl := newTeam(t), newClient(t, "regctl")
	regctl.env = append(regctl.env, "REGCTL_CONFIG="+regctl.file("regctl.json", []byte("{}")))
	regctl.run("registry", "set", "--skip-check", "--tls", "disabled", w.host())
	artifact := regctl.file("artifact", stuff{1500, 100_000}.bytes())
	tryClient(t, w, &loginClient{
		login: func(host string, c credential) (string, error) {
			return regctl.all("registry", "login", host, "-u", c.user, "-p", c.secret)
		},
		pull: func(ref string) (string, error) {
			return regctl.all("artifact", "get", ref, "-o", regctl.home)
		},
		push: func(ref string) (string, error) {
			return regctl.all("artifact", "put", "--artifact-type", "application/x-test", "-f", artifact, ref)
		},
		wrong: "unauthorized", noPull: "not found", noPush: "DENIED",
	})
}

func TestLoginHelm(t *testing.T) {
	w, helm := newTeam(t), newClient(t, "helm")
	split := func(ref string) (folder, chart, version string) {
		slash, colon := strings.LastIndexByte(ref, '/'), strings.LastIndexByte(ref, ':')
		return "oci://" + ref[:slash], ref[slash+1 : colon], ref[colon+1:]
	}
	helm.file("chart/templates/map.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\n"))
	tryClient(t, w, &loginClient{
		login: func(host string, c credential) (string, error) {
			return helm.all("registry", "login", "--plain-http", "-u", c.user, "-p", c.secret, host)
		},
		pull: func(ref string) (string, error) {
			folder, chart, version := split(ref)
			return helm.all("pull", "--plain-http", folder+"/"+chart, "--version", version)
		},
		push: func(ref string) (string, error) {
			folder, chart, version := split(ref)
			helm.file("chart/Chart.yaml", []byte("apiVersion: v2\nname: "+chart+"\nversion: "+version+"\ndescription: a chart\n"))
			helm.run("package", "chart")
			return helm.all("push", "--plain-http", chart+"-"+version+".tgz", folder)
		},
		wrong: "wrong user name, password or token", noPull: "not found", noPush: "denied",
	})
}

// TestLoginOras does what `oras login` does: it asks the registry with the
// credential and keeps it if that worked.
func TestLoginOras(t *testing.T) {
	note(t, "oras-go", moduleVersion(t, "oras.land/oras-go/v2"))
	w := newTeam(t)
	store := credentials.NewMemoryStore()
	client := &auth.Client{Credential: credentials.Credential(store)}
	repository := func(ref string) (*remote.Repository, error) {
		r, err := remote.NewRepository(ref)
		if err == nil {
			r.PlainHTTP, r.Client = true, client
		}
		return r, err
	}
	said := func(err error) (string, error) { return fmt.Sprint(err), err }
	tryClient(t, w, &loginClient{
		login: func(host string, c credential) (string, error) {
			client.Cache = auth.NewCache()
			registry, err := remote.NewRegistry(host)
			if err != nil {
				return said(err)
			}
			registry.PlainHTTP = true
			return said(credentials.Login(t.Context(), store, registry, auth.Credential{Username: c.user, Password: c.secret}))
		},
		pull: func(ref string) (string, error) {
			r, err := repository(ref)
			if err != nil {
				return said(err)
			}
			d, rc, err := r.FetchReference(t.Context(), r.Reference.Reference)
			if err != nil {
				return said(err)
			}
			_, err = content.ReadAll(rc, d)
			return said(errors.Join(err, rc.Close()))
		},
		push: func(ref string) (string, error) {
			r, err := repository(ref)
			if err != nil {
				return said(err)
			}
			return said(orasPush(t, r))
		},
		wrong: "wrong user name, password or token", noPull: "not found", noPush: "denied",
	})
}

// orasPush pushes an artifact without layers under the repository's own tag.
func orasPush(t *testing.T, r *remote.Repository) error {
	d, err := oras.PackManifest(t.Context(), r, oras.PackManifestVersion1_1, "application/x-test", oras.PackManifestOptions{})
	if err != nil {
		return err
	}
	return r.Tag(t.Context(), d, r.Reference.Reference)
}

// TestLoginContainerd: ctr keeps no log-in, but sends its credential each time.
func TestLoginContainerd(t *testing.T) {
	w, ctr := newTeam(t), newCtr(t)
	seed := w.repo(w.root(), "acme/seed")
	seed.pushImage("v1", 1600)
	user := func(c credential) string { return c.user + ":" + c.secret }
	ctr.run("images", "pull", "--plain-http", "--snapshotter", "native", "-u", user(w.alice), seed.at("v1"))
	var current credential
	tryClient(t, w, &loginClient{
		login: func(_ string, c credential) (string, error) {
			current = c
			return "", nil
		},
		pull: func(ref string) (string, error) {
			return ctr.all("images", "pull", "--plain-http", "--snapshotter", "native", "-u", user(current), ref)
		},
		push: func(ref string) (string, error) {
			ctr.run("images", "tag", "--force", seed.at("v1"), ref)
			return ctr.all("images", "push", "--plain-http", "-u", user(current), ref)
		},
		wrong: "401 Unauthorized", noPull: "not found", noPush: "403 Forbidden", lateLogin: true,
	})
}
