package ocihttp

import (
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

func (x *exchange) listTags() error {
	return x.listNames("/v2/"+x.req.repo+"/tags/list", `{"name":"`+x.req.repo+`","tags":[`, oci.CheckTag,
		func(after string) iter.Seq2[string, error] { return x.reg.Tags(x.ctx, x.req.repo, after) })
}

func (x *exchange) listRepositories() error {
	return x.listNames("/v2/_catalog", `{"repositories":[`, oci.CheckRepository,
		func(after string) iter.Seq2[string, error] { return x.reg.Repositories(x.ctx, after) })
}

// listNames answers a listing: a page where n asks for one, else everything,
// sent while it is read. head opens the JSON of the answer.
func (x *exchange) listNames(path, head string, check func(string) error, names func(after string) iter.Seq2[string, error]) error {
	n, paged, err := x.pageSize()
	if err != nil {
		return err
	}
	last, err := x.req.param("last")
	if err != nil {
		return err
	}
	if last != "" {
		if err := check(last); err != nil {
			return err
		}
	}
	if paged {
		return x.pageOfNames(path, head, n, names(last))
	}
	return x.allNames(head, names(last))
}

// pageSize reads the parameter n. A page is never longer than maxPage.
func (x *exchange) pageSize() (n int, paged bool, err error) {
	if _, paged = x.req.query["n"]; !paged {
		return maxPage, false, nil
	}
	s, err := x.req.param("n")
	if err != nil {
		return 0, true, err
	}
	value, ok := number(s)
	if !ok {
		return 0, true, refuse(http.StatusBadRequest, "UNSUPPORTED", "n is %.32q; write a number of elements, 0 or more", s)
	}
	return int(min(value, maxPage)), true, nil
}

// pageOfNames sends at most n names, and a Link if there are more.
func (x *exchange) pageOfNames(path, head string, n int, names iter.Seq2[string, error]) error {
	list, count, last := []byte(head), 0, ""
	for name, err := range names {
		if err != nil {
			return err
		}
		if count == n {
			if n > 0 {
				x.linkNext(path, url.Values{"n": {strconv.Itoa(n)}, "last": {last}})
			}
			break
		}
		if list, err = appendElement(list, name, count == 0); err != nil {
			return err
		}
		last = name
		count++
	}
	return x.respondBytes(http.StatusOK, "application/json", append(list, "]}\n"...))
}

// allNames sends every name, in portions, so that memory does not grow with
// the list. An error behind the first portion breaks the answer off.
func (x *exchange) allNames(head string, names iter.Seq2[string, error]) error {
	const portion = 16 << 10
	list, first := []byte(head), true
	for name, err := range names {
		if err != nil {
			return err
		}
		if list, err = appendElement(list, name, first); err != nil {
			return err
		}
		first = false
		if len(list) < portion {
			continue
		}
		if err := x.sendPortion(list); err != nil || x.r.Method == http.MethodHead {
			return err
		}
		list = list[:0]
	}
	list = append(list, "]}\n"...)
	if x.status == 0 {
		return x.respondBytes(http.StatusOK, "application/json", list)
	}
	return x.sendPortion(list)
}

// sendPortion sends a part of an answer whose length nobody knows; each part
// has its own time to be taken in.
func (x *exchange) sendPortion(p []byte) error {
	if x.status == 0 {
		x.set("Content-Type", "application/json")
		x.respond(http.StatusOK, -1)
	} else {
		x.allowWriting(int64(len(p)))
	}
	return x.write(p)
}

// appendElement appends the JSON of v to an open list.
func appendElement(list []byte, v any, first bool) ([]byte, error) {
	element, err := json.Marshal(v)
	if err != nil {
		return list, err
	}
	if !first {
		list = append(list, ',')
	}
	return append(list, element...), nil
}

// listReferrers sends a page of descriptors as an index. A page ends before it
// grows beyond what clients accept as a manifest; a descriptor that is larger
// by itself is a page by itself.
func (x *exchange) listReferrers() error {
	artifactType, after, n, err := x.referrersOptions()
	if err != nil {
		return err
	}
	list := []byte(`{"schemaVersion":2,"mediaType":"` + oci.MediaTypeIndex + `","manifests":[`)
	count, last := 0, oci.Digest("")
	for desc, err := range x.reg.Referrers(x.ctx, x.req.repo, x.req.digest, artifactType, after) {
		if registry.IsCode(err, registry.ManifestUnknown) {
			break // a client takes 404 for a registry without this API
		}
		if err != nil {
			return err
		}
		longer, err := appendElement(list, desc, count == 0)
		if err != nil {
			return err
		}
		if count == n || count > 0 && len(longer)+len("]}\n") > maxIndex {
			x.linkReferrers(artifactType, last)
			break
		}
		list, last = longer, desc.Digest
		count++
	}
	if artifactType != "" {
		x.set("Oci-Filters-Applied", "artifactType")
	}
	return x.respondBytes(http.StatusOK, oci.MediaTypeIndex, append(list, "]}\n"...))
}

func (x *exchange) referrersOptions() (artifactType string, after oci.Digest, n int, err error) {
	if artifactType, err = x.req.param("artifactType"); err != nil {
		return
	}
	if len(artifactType) > oci.MaxMediaType {
		err = refuse(http.StatusBadRequest, "UNSUPPORTED", "artifactType has %d bytes; at most %d are allowed", len(artifactType), oci.MaxMediaType)
		return
	}
	if after, err = x.req.digestParam("last"); err != nil {
		return
	}
	n, _, err = x.pageSize()
	return
}

// linkReferrers links the page behind last; an empty page has none.
func (x *exchange) linkReferrers(artifactType string, last oci.Digest) {
	if last == "" {
		return
	}
	query := url.Values{"last": {string(last)}}
	if artifactType != "" {
		query.Set("artifactType", artifactType)
	}
	if n := x.req.query.Get("n"); n != "" {
		query.Set("n", n)
	}
	x.linkNext("/v2/"+x.req.repo+"/referrers/"+string(x.req.digest), query)
}

// linkNext sets the Link to the next page (RFC 8288).
func (x *exchange) linkNext(path string, query url.Values) {
	x.set("Link", "<"+path+"?"+query.Encode()+`>; rel="next"`)
}
