package upstreamtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// ReferrersAPI is how the API of that name is served.
type ReferrersAPI struct {
	Absent       bool   // there is none: 404
	PageSize     int    // 0: all at once
	IgnoreFilter bool   // artifactType does nothing
	Absolute     bool   // Link has scheme and host
	LinkTo       string // what Link's target begins with; "": this registry
}

// SetReferrers changes how referrers are served.
func (u *Registry) SetReferrers(api ReferrersAPI) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.referrers = api
}

func (u *Registry) serve(w http.ResponseWriter, r *http.Request, q Request) {
	switch q.Kind {
	case Ping:
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		w.WriteHeader(http.StatusOK)
	case Token:
		u.serveToken(w, r)
	case Manifest:
		u.serveManifest(w, r, q)
	case Blob:
		u.serveBlob(w, r, q)
	case Tags:
		u.serveTags(w, r, q)
	case Referrers:
		u.serveReferrers(w, r, q)
	default:
		refuse(w, http.StatusNotFound, "NOT_FOUND")
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"so says the upstream"}]}`, code)
}

func (u *Registry) serveManifest(w http.ResponseWriter, r *http.Request, q Request) {
	u.mu.Lock()
	repo, known := u.repos[q.Repo]
	var m stored
	digest, found := q.Ref, false
	if known {
		if !strings.Contains(digest, ":") {
			digest = repo.tags[q.Ref]
		}
		m, found = repo.manifests[digest]
	}
	u.mu.Unlock()
	switch {
	case !known:
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN")
	case !found:
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
	default:
		w.Header().Set("Docker-Content-Digest", digest)
		w.Header().Set("Content-Type", m.mediaType)
		w.Header().Set("Content-Length", strconv.Itoa(len(m.content)))
		w.WriteHeader(http.StatusOK)
		if r.Method != http.MethodHead {
			w.Write(m.content)
		}
	}
}

func (u *Registry) serveBlob(w http.ResponseWriter, r *http.Request, q Request) {
	u.mu.Lock()
	content, ok := []byte(nil), false
	if repo := u.repos[q.Repo]; repo != nil {
		content, ok = repo.blobs[q.Ref]
	}
	u.mu.Unlock()
	if !ok {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	serveBytes(w, r, q.Ref, content)
}

func serveBytes(w http.ResponseWriter, r *http.Request, digest string, content []byte) {
	w.Header().Set("Docker-Content-Digest", digest)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+digest+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// Storage serves the blobs of all repositories at /DIGEST, as the storage behind
// a registry does.
func (u *Registry) Storage() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		digest := strings.TrimPrefix(r.URL.Path, "/")
		u.mu.Lock()
		var content []byte
		for _, repo := range u.repos {
			if c, ok := repo.blobs[digest]; ok {
				content = c
			}
		}
		u.mu.Unlock()
		if content == nil {
			http.NotFound(w, r)
			return
		}
		serveBytes(w, r, digest, content)
	})
}

func (u *Registry) serveTags(w http.ResponseWriter, r *http.Request, q Request) {
	u.mu.Lock()
	repo, ok := u.repos[q.Repo]
	var tags []string
	if ok {
		for tag := range repo.tags {
			tags = append(tags, tag)
		}
	}
	u.mu.Unlock()
	if !ok {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN")
		return
	}
	sort.Strings(tags)
	if last := q.Query.Get("last"); last != "" {
		at, _ := slices.BinarySearch(tags, last+"\x00")
		tags = tags[at:]
	}
	if n, err := strconv.Atoi(q.Query.Get("n")); err == nil && n < len(tags) {
		tags = tags[:n]
		w.Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?n=%d&last=%s>; rel="next"`, q.Repo, n, tags[n-1]))
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"name": q.Repo, "tags": tags})
}

// subjects are the referrers of a manifest, as the API describes them.
func (r *repository) of(subject string) (list []Descriptor) {
	for _, digest := range r.order {
		s, ok := r.manifests[digest]
		var m manifest
		if !ok || json.Unmarshal(s.content, &m) != nil || m.Subject == nil || m.Subject.Digest != subject {
			continue
		}
		d := Descriptor{MediaType: s.mediaType, Digest: digest, Size: int64(len(s.content)), ArtifactType: m.ArtifactType, Annotations: m.Annotations}
		if d.ArtifactType == "" && m.Config != nil {
			d.ArtifactType = m.Config.MediaType
		}
		list = append(list, d)
	}
	return list
}

func (u *Registry) serveReferrers(w http.ResponseWriter, r *http.Request, q Request) {
	u.mu.Lock()
	api := u.referrers
	list := []Descriptor{}
	if repo := u.repos[q.Repo]; repo != nil {
		list = append(list, repo.of(q.Ref)...)
	}
	u.mu.Unlock()
	if api.Absent {
		http.NotFound(w, r) // no route: not even an error of the protocol
		return
	}
	if wanted := q.Query.Get("artifactType"); wanted != "" && !api.IgnoreFilter {
		list = slices.DeleteFunc(list, func(d Descriptor) bool { return d.ArtifactType != wanted })
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	from, _ := strconv.Atoi(q.Query.Get("from"))
	list = list[min(from, len(list)):]
	if api.PageSize > 0 && len(list) > api.PageSize {
		list = list[:api.PageSize]
		target := fmt.Sprintf("%s/v2/%s/referrers/%s?from=%d", api.LinkTo, q.Repo, q.Ref, from+api.PageSize)
		if api.Absolute {
			target = u.URL() + target
		}
		w.Header().Set("Link", "<"+target+`>; rel="next"`)
	}
	w.Header().Set("Content-Type", ImageIndex)
	json.NewEncoder(w).Encode(manifest{SchemaVersion: 2, MediaType: ImageIndex, Manifests: list})
}
