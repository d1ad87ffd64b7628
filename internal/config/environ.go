package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/berth-registry/berth/internal/notation"
)

const envPrefix = "BERTH_"

// clientVariables say which server the other commands talk to, and how.
var clientVariables = []string{"BERTH_SERVER", "BERTH_KEY"}

// readEnviron takes the BERTH_ variables. An empty one counts as not set.
func (l *loader) readEnviron(environ []string) {
	byName := make(map[string]*key, len(keys))
	names := make([]string, 0, len(keys))
	for i := range keys {
		byName[keys[i].env()] = &keys[i]
		names = append(names, keys[i].env())
	}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || fromKubernetes(name, value) || slices.Contains(clientVariables, name) {
			continue
		}
		k := byName[name]
		switch {
		case k == nil:
			l.problem("environment: unknown variable %s; did you mean %s?", notation.Shown(name), nearest(name, names, "_"))
		case value != "":
			l.set(k, value, name, name)
		}
	}
}

// kubernetesName matches what Kubernetes sets in every container for a Service
// named berth or berth-something; BERTH_PORT is left to its value.
var kubernetesName = regexp.MustCompile(`^BERTH_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// fromKubernetes reports whether a variable is Kubernetes' and nobody's mistake.
func fromKubernetes(name, value string) bool {
	return kubernetesName.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
}

// readFlags takes the flags that were given, in the order of their names.
func (l *loader) readFlags(flags map[string]string) {
	paths := make([]string, 0, len(flags))
	for path := range flags {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		name := "--" + strings.NewReplacer(".", "-", "_", "-").Replace(path)
		k := findKey(path)
		if k == nil {
			l.problem("%s: sets the unknown key %s; did you mean %s?", name, path, nearest(path, keyPaths(), "."))
			continue
		}
		l.set(k, flags[path], "flag", name)
	}
}
