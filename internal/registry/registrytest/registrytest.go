// Package registrytest is the conformance suite of registry.Registry: one set
// of cases that every implementation, wrapper and stack of them passes. It also
// exports small builders of content for the tests of other packages.
package registrytest

import (
	"slices"
	"testing"

	"github.com/berth-registry/berth/internal/registry"
)

// Options say what an implementation offers or cannot do.
type Options struct {
	// Sparse opens a registry that accepts manifests whose content is absent.
	// Its cases do not run when it is nil.
	Sparse func(t *testing.T) registry.Registry

	// Lacks maps the name of a case ("mount/any") to the reason why it cannot
	// hold for this implementation. The case is skipped with the reason.
	Lacks map[string]string
}

// testCase is one case; r is a fresh, empty registry.
type testCase struct {
	name string
	run  func(t *testing.T, r registry.Registry)
}

// Run runs the suite. open makes a fresh, empty registry for each case and
// registers its end with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) registry.Registry, o Options) {
	t.Helper()
	cases := slices.Concat(blobCases, uploadCases, sessionCases, mountCases, manifestCases,
		refusedManifestCases, referrerCases, tagCases, repositoryCases, deleteCases, concurrentCases)
	for name := range o.Lacks {
		if !slices.ContainsFunc(cases, func(c testCase) bool { return c.name == name }) {
			t.Fatalf("Options.Lacks names %q, which is no case", name)
		}
	}
	runCases(t, cases, open, o.Lacks)
	if o.Sparse != nil {
		runCases(t, sparseCases, o.Sparse, nil)
	}
}

func runCases(t *testing.T, cases []testCase, open func(t *testing.T) registry.Registry, lacks map[string]string) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if reason := lacks[c.name]; reason != "" {
				t.Skip(reason)
			}
			c.run(t, open(t))
		})
	}
}
