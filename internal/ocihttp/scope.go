package ocihttp

import (
	"net/http"

	"github.com/berth-registry/berth/internal/oci"
)

// scope is what a token must be asked for so that it is good for this request,
// as a challenge names it; "" where any token is.
func (x *exchange) scope() string {
	switch x.req.kind {
	case kindCatalog:
		return "registry:catalog:*"
	case kindUploads:
		return repositoryScope(x.req.repo, "pull,push") + x.mountScope()
	case kindUpload:
		return repositoryScope(x.req.repo, "pull,push")
	case kindManifest, kindBlob, kindTags, kindReferrers:
		switch x.r.Method {
		case http.MethodPut:
			return repositoryScope(x.req.repo, "pull,push")
		case http.MethodDelete:
			return repositoryScope(x.req.repo, "delete")
		}
		return repositoryScope(x.req.repo, "pull")
	}
	return ""
}

// mountScope is what mounting from another repository needs besides.
func (x *exchange) mountScope() string {
	from := x.req.query.Get("from")
	if from == "" || x.req.query.Get("mount") == "" || oci.CheckRepository(from) != nil {
		return ""
	}
	return " " + repositoryScope(from, "pull")
}

func repositoryScope(repo, actions string) string {
	if repo == "" {
		return ""
	}
	return "repository:" + repo + ":" + actions
}
