package proxyspec

import (
	"net/url"
	"slices"
	"strings"
)

// DockerHub is what Docker calls its registry.
const DockerHub = "docker.io"

const dockerHubAddress = "https://registry-1.docker.io"

// hubHosts are other names of Docker Hub.
var hubHosts = []string{"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"}

// known are registries whose address is their name.
var known = []string{
	"asia.gcr.io", "cgr.dev", "codeberg.org", "container-registry.oracle.com", "docker.elastic.co", "eu.gcr.io", "gcr.io", "ghcr.io", "icr.io",
	"k8s.gcr.io", "mcr.microsoft.com", "nvcr.io", "public.ecr.aws", "quay.io", "registry.access.redhat.com", "registry.gitlab.com", "registry.k8s.io",
	"registry.opensuse.org", "registry.redhat.io", "registry.suse.com", "us.gcr.io", "xpkg.upbound.io",
}

// KnownUpstream is the address of the registry that is generally known by a
// name, "" for others.
func KnownUpstream(name string) string {
	switch {
	case name == DockerHub:
		return dockerHubAddress
	case slices.Contains(known, name):
		return "https://" + name
	}
	return ""
}

// Endpoints are the addresses of the upstream, that of a well-known one too.
func (p *Proxy) Endpoints() []string {
	if len(p.Upstreams) > 0 {
		return p.Upstreams
	}
	if known := KnownUpstream(p.Name); known != "" {
		return []string{known}
	}
	return nil
}

// Library reports whether the upstream is Docker Hub, or a mirror of it, where
// what has a name of one part lies under library/.
func (p *Proxy) Library() bool {
	if p.Name == DockerHub {
		return true
	}
	for _, ns := range p.Namespaces {
		if name, ok := NormalNamespace(ns); ok && name == DockerHub {
			return true
		}
	}
	return slices.ContainsFunc(p.Upstreams, func(address string) bool {
		u, err := url.Parse(address)
		return err == nil && slices.Contains(hubHosts, strings.ToLower(u.Hostname()))
	})
}

// AllNamespaces are the values of ns, in their normal form, that mean p.
func (p *Proxy) AllNamespaces() (all []string) {
	for _, ns := range append([]string{p.Name}, p.Namespaces...) {
		if name, ok := NormalNamespace(ns); ok && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// MaxNamespace bounds a value of ns, in bytes.
const MaxNamespace = 255

// NormalNamespace is the one form of a value of ns, which names a registry:
// in lower case, without the port that goes without saying, and docker.io for
// all names of Docker Hub. ok is false of what can name none.
func NormalNamespace(ns string) (name string, ok bool) {
	if ns == "" || len(ns) > MaxNamespace {
		return "", false
	}
	name = strings.ToLower(ns)
	if strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(hostLetters, r) }) {
		return "", false
	}
	if strings.Count(name, ":") > 1 && name[0] != '[' {
		return "", false
	}
	if host, port, _ := strings.Cut(name[strings.LastIndexByte(name, ']')+1:], ":"); port == "443" || port == "80" {
		name = name[:strings.LastIndexByte(name, ']')+1] + host
	}
	name = strings.TrimSuffix(name, ".")
	if slices.Contains(hubHosts, name) {
		name = DockerHub
	}
	return name, name != ""
}

// hostLetters are those of host names and addresses, with a port.
const hostLetters = "abcdefghijklmnopqrstuvwxyz0123456789.-_:[]"
