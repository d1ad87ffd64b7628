package remote

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// Bounds of the referrers of one subject, which are kept in memory.
const (
	maxReferrers      = 50_000
	maxReferrersPages = 1000
	maxReferrersPage  = 8 << 20  // bytes
	maxReferrersBytes = 16 << 20 // bytes, all pages together
)

// referrersMemory is for how long a registry is believed to have no referrers API.
const referrersMemory = time.Hour

// referrersAPI is what is known of a registry's referrers API.
type referrersAPI struct {
	mu         sync.Mutex
	there      bool      // it has answered
	lacksUntil time.Time // it is not there; asked again then
}

// lacks reports whether the API need not be asked.
func (a *referrersAPI) lacks(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.lacksUntil)
}

func (a *referrersAPI) answered() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.there = true
}

// failed remembers that the API seems not to be there. Of one that has answered
// before, this says something of a repository, not of the registry.
func (a *referrersAPI) failed(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.there {
		a.lacksUntil = now.Add(referrersMemory)
	}
}

// Referrers collects all of them, as upstream's order is its own, and yields
// them ordered by digest. Where upstream has no referrers API, the index that
// clients keep under the referrers tag takes its place.
func (r *Registry) Referrers(ctx context.Context, repo string, subject oci.Digest, artifactType string, after oci.Digest) iter.Seq2[oci.Descriptor, error] {
	return func(yield func(oci.Descriptor, error) bool) {
		all, _, err := r.allReferrers(ctx, repo, subject, artifactType)
		if err != nil {
			yield(oci.Descriptor{}, err)
			return
		}
		slices.SortStableFunc(all, func(a, b oci.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
		for _, d := range all {
			if d.Digest <= after || artifactType != "" && d.ArtifactType != artifactType {
				continue
			}
			if !yield(d, nil) {
				return
			}
			after = d.Digest // and none twice
		}
	}
}

// AllReferrers lists the referrers of a subject in upstream's order, whatever
// their type. tagged says that they are from the index under the referrers tag,
// as clients wrote them there: to be confirmed, and completed, by the manifests
// themselves. None is no error; that upstream does not answer, or refuses, is
// one, for nobody knows then.
func (r *Registry) AllReferrers(ctx context.Context, repo string, subject oci.Digest) (list []oci.Descriptor, tagged bool, err error) {
	return r.allReferrers(ctx, repo, subject, "")
}

// allReferrers lets upstream leave out other types than artifactType, if it can.
func (r *Registry) allReferrers(ctx context.Context, repo string, subject oci.Digest, artifactType string) (list []oci.Descriptor, tagged bool, err error) {
	if !r.listing.lacks(r.o.Now()) {
		list, err = r.listedReferrers(ctx, repo, subject, artifactType)
		if err == nil {
			r.listing.answered()
			return list, false, nil
		}
		var none *noReferrersAPI
		if !errors.As(err, &none) {
			return nil, false, err
		}
		if none.whole {
			r.listing.failed(r.o.Now())
		}
	}
	list, err = r.taggedReferrers(ctx, repo, subject)
	return list, true, err
}

// noReferrersAPI is the error for an answer that is none of a referrers API.
type noReferrersAPI struct {
	whole bool // of the registry; else perhaps only of one repository
	err   error
}

func (e *noReferrersAPI) Error() string { return "no referrers API: " + e.err.Error() }
func (e *noReferrersAPI) Unwrap() error { return e.err }

// listedReferrers asks the referrers API. Errors: *noReferrersAPI.
func (r *Registry) listedReferrers(ctx context.Context, repo string, subject oci.Digest, artifactType string) ([]oci.Descriptor, error) {
	query := url.Values{}
	if artifactType != "" {
		query.Set("artifactType", artifactType)
	}
	req := request{
		method: http.MethodGet, repo: repo, url: r.at(repo, "/referrers/"+subject.String(), query),
		header: http.Header{"Accept": {oci.MediaTypeIndex}}, absent: registry.ManifestUnknown,
	}
	var all []oci.Descriptor
	rest := int64(maxReferrersBytes)
	for pages := 0; req.url != nil; pages++ {
		if pages == maxReferrersPages || len(all) > maxReferrers || rest <= 0 {
			return nil, faulty(repo, "its list of the referrers of %s has no end", subject)
		}
		page, next, err := r.referrersPage(ctx, req, &rest)
		var none *noReferrersAPI
		if errors.As(err, &none) && pages > 0 {
			return nil, faulty(repo, "its list of the referrers of %s broke off behind page %d", subject, pages)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		req.url = next
	}
	return all, nil
}

// referrersPage gets one page and where the next one is. The bytes it has are
// taken off rest.
func (r *Registry) referrersPage(ctx context.Context, req request, rest *int64) ([]oci.Descriptor, *url.URL, error) {
	resp, err := r.send(context.WithValue(ctx, homeKey{}, true), req)
	if err != nil {
		return nil, nil, unsupported(err)
	}
	defer resp.Body.Close()
	most := min(maxReferrersPage, *rest)
	content, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, nil, broken(req.repo, err)
	}
	if int64(len(content)) > most {
		return nil, nil, faulty(req.repo, "its list of referrers has more bytes than a list of that kind may have")
	}
	*rest -= int64(len(content))
	declared := mediaType(resp) == oci.MediaTypeIndex
	list, mediaType, err := readReferrers(content)
	switch {
	case err == nil && (declared || mediaType == oci.MediaTypeIndex):
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, nil, broken(req.repo, err)
	case declared:
		return nil, nil, faulty(req.repo, "its list of referrers is malformed")
	default:
		return nil, nil, &noReferrersAPI{whole: true, err: errors.New("the answer is not an index")}
	}
	next, err := r.nextLink(req, resp)
	return list, next, err
}

// unsupported finds out whether an error says that there is no referrers API,
// which every repository of a registry that has one answers to.
func unsupported(err error) error {
	var said *answer
	if !errors.As(err, &said) || errors.Is(err, registry.ErrRefused) {
		return err
	}
	switch {
	case said.status >= 300 && said.status < 400:
		return &noReferrersAPI{whole: true, err: err}
	case said.status == http.StatusNotFound, registry.IsCode(err, registry.Unsupported):
		// What is said of a repository or a manifest may not hold for others.
		about := said.code == "NAME_UNKNOWN" || said.code == "MANIFEST_UNKNOWN" || said.code == "NAME_INVALID"
		return &noReferrersAPI{whole: !about, err: err}
	}
	return err
}

// readReferrers reads an index of any length without more memory than its
// descriptors need. What cannot be one is left out.
func readReferrers(content []byte) (list []oci.Descriptor, mediaType string, err error) {
	dec := json.NewDecoder(bytes.NewReader(content))
	if err := expect(dec, '{'); err != nil {
		return nil, "", err
	}
	found := false
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, "", err
		}
		switch key {
		case "mediaType":
			err = dec.Decode(&mediaType)
		case "manifests":
			found = true
			list, err = readDescriptors(dec)
		default:
			var skipped json.RawMessage
			err = dec.Decode(&skipped)
		}
		if err != nil {
			return nil, "", err
		}
	}
	if err := expect(dec, '}'); err != nil {
		return nil, "", err
	}
	if !found {
		return nil, "", errors.New("no manifests")
	}
	return list, mediaType, nil
}

// readDescriptors reads a list of descriptors, or null.
func readDescriptors(dec *json.Decoder) (list []oci.Descriptor, err error) {
	if t, err := dec.Token(); err != nil || t == nil {
		return nil, err
	} else if t != json.Delim('[') {
		return nil, errors.New("manifests are not a list")
	}
	for n := 0; dec.More(); n++ {
		if n == maxReferrers {
			return nil, errors.New("too many")
		}
		var d oci.Descriptor
		if err := dec.Decode(&d); err != nil {
			return nil, err
		}
		if !invalid(d) {
			list = append(list, d)
		}
	}
	return list, expect(dec, ']')
}

func expect(dec *json.Decoder, want json.Delim) error {
	t, err := dec.Token()
	if err == nil && t != want {
		err = errors.New("another form of JSON")
	}
	return err
}

// taggedReferrers reads the index under the referrers tag. None is no error,
// and neither is a tag that somebody uses for something else.
func (r *Registry) taggedReferrers(ctx context.Context, repo string, subject oci.Digest) ([]oci.Descriptor, error) {
	m, err := r.Manifest(ctx, repo, oci.TagRef(subject.ReferrersTag()))
	switch {
	case errors.Is(err, registry.ErrRefused):
		return nil, err
	case registry.IsCode(err, registry.ManifestUnknown), registry.IsCode(err, registry.NameUnknown):
		return nil, nil
	case err != nil:
		return nil, err
	case !oci.IsIndex(m.MediaType):
		return nil, nil
	}
	list, _, err := readReferrers(m.Content)
	if err != nil {
		return nil, nil
	}
	return list, nil
}

// invalid reports whether d cannot be passed on as a descriptor of a manifest.
func invalid(d oci.Descriptor) bool {
	_, err := oci.ParseDigest(string(d.Digest))
	return err != nil || d.Size < 0 || len(d.MediaType) > oci.MaxMediaType
}
