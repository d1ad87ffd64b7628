package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/berth-registry/berth/internal/credential"
	"github.com/berth-registry/berth/internal/oci"
	"github.com/berth-registry/berth/internal/registry"
)

// probeRange is how many bytes of a blob a probe reads.
const probeRange = 1 << 10

// Step is one thing that a Probe tried, in words for an administrator.
type Step struct {
	Endpoint string `json:"endpoint"`
	Name     string `json:"name"` // one of the Step constants
	OK       bool   `json:"ok"`
	Skipped  bool   `json:"skipped,omitempty"` // it was not tried; Detail says why
	Detail   string `json:"detail"`            // what was found
	Advice   string `json:"advice,omitempty"`  // what to do about it
}

// The names of steps, in their order.
const (
	StepAddress   = "address"
	StepPing      = "ping"
	StepLogin     = "log-in"
	StepResolve   = "manifest HEAD"
	StepManifest  = "manifest GET"
	StepBlob      = "blob"
	StepReferrers = "referrers"
	StepTags      = "tags"
)

// Probe walks the way of a pull at every endpoint, and reports each step as soon
// as it is done. Behind the log-in it needs a repository; "": it stops there.
// Nothing of what it reads is kept. It goes through the same limits, breakers and
// pauses as everything else.
func (u *Registry) Probe(ctx context.Context, repo string, ref oci.Ref, report func(Step)) {
	for _, e := range u.endpoints {
		p := &probe{upstream: u, endpoint: e, repo: repo, ref: ref}
		p.report = func(s Step) {
			s.Endpoint = e.address.String()
			report(s)
		}
		p.walk(ctx)
	}
}

// probe is one walk.
type probe struct {
	upstream *Registry
	endpoint *endpoint
	repo     string
	ref      oci.Ref
	report   func(Step)

	challenge http.Header // of the ping; nil: it was let in
	found     oci.Descriptor
	blob      *oci.Descriptor
}

// walk takes the steps in turn. Without the first four the others make no sense.
func (p *probe) walk(ctx context.Context) {
	steps := []struct {
		name string
		take func(context.Context) Step
		must bool
	}{
		{StepAddress, p.address, true}, {StepPing, p.ping, true}, {StepLogin, p.login, true},
		{StepResolve, p.resolve, true}, {StepManifest, p.manifest, false}, {StepBlob, p.first, false},
		{StepReferrers, p.referrers, false}, {StepTags, p.tags, false},
	}
	missing := ""
	for i, step := range steps {
		if missing == "" && p.repo == "" && i > 2 {
			missing = "no repository was named"
		}
		if missing != "" {
			p.report(Step{Name: step.name, Skipped: true, Detail: "not tried: " + missing})
			continue
		}
		s := step.take(ctx)
		s.Name = step.name
		p.report(s)
		if !s.OK && !s.Skipped && step.must {
			missing = "the step before it failed"
		}
	}
}

func good(format string, args ...any) Step {
	return Step{OK: true, Detail: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) Step {
	return Step{Skipped: true, Detail: fmt.Sprintf(format, args...)}
}

// bad is a step that failed with err.
func (p *probe) bad(err error) Step { return Step{Detail: words(err), Advice: p.advice(err)} }

// address resolves the endpoint's name, looks whether we may dial what it stands
// for, and does.
func (p *probe) address(ctx context.Context) Step {
	at := p.endpoint.address
	host, port := at.Hostname(), at.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[at.Scheme]
	}
	if p.upstream.proxied(&http.Request{URL: at}) {
		return skipped("requests go through an HTTP proxy, which finds %s itself", host)
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return p.bad(err)
	}
	if refused := p.refused(addresses); len(refused) == len(addresses) {
		return Step{Detail: fmt.Sprintf("%s is %s: not a public address, and not dialled", host, list(addresses)),
			Advice: "if the registry is meant to be there, name its network in the upstream's networks, such as " + netip.PrefixFrom(refused[0], refused[0].BitLen()).String()}
	}
	c, err := p.upstream.transport.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return p.bad(err)
	}
	reached := c.RemoteAddr().String()
	c.Close()
	return good("%s is %s; connected to %s", host, list(addresses), reached)
}

func (p *probe) refused(addresses []netip.Addr) (refused []netip.Addr) {
	for _, a := range addresses {
		if !p.upstream.policy.allows(a) {
			refused = append(refused, a.Unmap().WithZone(""))
		}
	}
	return refused
}

// list names some addresses.
func list(addresses []netip.Addr) string {
	var names []string
	for i, a := range addresses {
		if i == 8 {
			names = append(names, "…")
			break
		}
		names = append(names, a.Unmap().String())
	}
	return strings.Join(names, ", ")
}

// ping asks whether there is a registry, as nobody.
func (p *probe) ping(ctx context.Context) Step {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.endpoint.address.JoinPath("/v2/").String(), nil)
	if err != nil {
		return p.bad(err)
	}
	req.Header.Set("User-Agent", "berth")
	client := &http.Client{
		Transport:     &trip{p.upstream, p.endpoint, ""},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return p.bad(err)
	}
	resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
		return good("there is a registry, which answers without a log-in")
	case resp.StatusCode == http.StatusUnauthorized:
		p.challenge = resp.Header
		return good("there is a registry, which wants %s", p.wants(ctx))
	}
	return Step{Detail: fmt.Sprintf("%s answered %d %s", req.URL, resp.StatusCode, http.StatusText(resp.StatusCode)), Advice: pingAdvice(resp.StatusCode)}
}

func (p *probe) wants(ctx context.Context) string {
	if x, ok := p.endpoint.authorizer.(explainer); ok {
		wants, _ := x.Explain(ctx, p.challenge)
		return wants
	}
	return "a log-in"
}

func pingAdvice(status int) string {
	switch {
	case status == http.StatusNotFound:
		return "there is no registry at this address: check it, its path too; the registry's API lies at its /v2/"
	case status >= 300 && status < 400:
		return "the registry's API leads elsewhere: write the address that it leads to"
	case status == http.StatusForbidden:
		return "something in front of the registry does not let us in: is it open to this machine's address?"
	case status == http.StatusTooManyRequests:
		return "it was asked too much: wait; who logs in may often ask more"
	case status >= 500:
		return "the registry, or what stands in front of it, is broken: try again later, and ask those who run it"
	}
	return "check that the address is that of a registry"
}

// explainer is an Authorizer that has words for what it does.
type explainer interface {
	Explain(ctx context.Context, header http.Header) (wants, shows string)
}

// login shows our credentials as the ping said, or gets a token with them.
func (p *probe) login(ctx context.Context) Step {
	a := p.endpoint.authorizer
	switch {
	case a == nil && p.challenge != nil:
		return skipped("no credentials are for this endpoint; what needs none can be had")
	case a == nil || p.challenge == nil:
		return skipped("nobody asks us to log in")
	}
	as := "us"
	if x, ok := a.(explainer); ok {
		_, as = x.Explain(ctx, p.challenge)
	}
	ok, err := a.Challenged(ctx, p.repo, "", p.challenge)
	switch {
	case errors.Is(err, registry.ErrRefused) && p.repo == "":
		return good("the registry knows us (%s)", as)
	case err != nil:
		return p.bad(err)
	case !ok:
		return Step{Detail: fmt.Sprintf("the registry wants a log-in, and we are %s", as),
			Advice: "configure a credential of the kind that the registry wants: " + p.wants(ctx)}
	}
	return good("logged in (%s)", as)
}

// resolve asks what the reference stands for, as every pull of a tag does.
func (p *probe) resolve(ctx context.Context) Step {
	ctx, t := traced(withKind(ctx, KindManifest))
	d, err := p.endpoint.remote.Resolve(ctx, p.repo, p.ref)
	if err != nil {
		return p.bad(err)
	}
	p.found = d
	s := good("%s is %s, %s, %d bytes", p.ref, d.Digest, d.MediaType, d.Size)
	if t.any(func(h hop) bool { return h.role == RoleRegistry && h.method == http.MethodGet }) {
		s.Detail += "; its HEAD says too little"
		s.Advice = "each look at a tag is a whole GET there, which registries count as a pull: let tags be fresh for longer"
	}
	if b := p.endpoint.budget.get(p.upstream.o.Now()); !b.Seen.IsZero() {
		s.Detail += fmt.Sprintf("; %d of %d requests in %v are left", b.Remaining, b.Limit, b.Window)
	}
	return s
}

// manifest gets it, and of an index its first image, for there to be a blob.
func (p *probe) manifest(ctx context.Context) Step {
	ctx = withKind(ctx, KindManifest)
	m, err := p.endpoint.remote.Manifest(ctx, p.repo, oci.DigestRef(p.found.Digest))
	if err != nil {
		return p.bad(err)
	}
	detail := fmt.Sprintf("%d bytes, which have the digest", len(m.Content))
	parsed, err := oci.ParseManifest(m.MediaType, m.Content)
	for depth := 0; err == nil && len(parsed.Manifests) > 0 && depth < 3; depth++ {
		child := parsed.Manifests[0]
		if m, err = p.endpoint.remote.Manifest(ctx, p.repo, oci.DigestRef(child.Digest)); err != nil {
			return Step{Detail: fmt.Sprintf("%s; but not the first of those it names, %s: %s", detail, child.Digest, words(err)),
				Advice: "some registries keep an index whole although images of it are gone: if pulls of your platform work, nothing"}
		}
		detail += fmt.Sprintf("; so has the first of those it names, %s", child.Digest)
		parsed, err = oci.ParseManifest(m.MediaType, m.Content)
	}
	if err != nil {
		return Step{OK: true, Detail: detail + "; what it says cannot be read: " + err.Error(), Advice: "Berth passes on what it cannot read, and keeps it where it can"}
	}
	for _, d := range parsed.Blobs {
		if p.blob == nil || d.Size > p.blob.Size {
			p.blob = &d
		}
	}
	return good("%s", detail)
}

// first reads a few bytes from within the largest blob.
func (p *probe) first(ctx context.Context) Step {
	if p.blob == nil {
		return skipped("not tried: no manifest that was read names a blob")
	}
	ctx, t := traced(withKind(ctx, KindBlob))
	off := min(1, p.blob.Size/2)
	n := min(probeRange, p.blob.Size-off)
	body, err := p.endpoint.remote.KnownBlob(p.repo, *p.blob).Open(ctx, off, n)
	if err == nil {
		_, err = io.Copy(io.Discard, body)
		body.Close()
	}
	if err != nil {
		return p.bad(err)
	}
	s := good("%d bytes of %s", n, p.blob.Digest)
	if h, ok := t.last(); ok && h.role == RoleStorage {
		s.Detail += fmt.Sprintf("; they come from %s, which is shown no credentials", h.host)
	}
	if h, ok := t.last(); ok && n < p.blob.Size && h.status != http.StatusPartialContent {
		s.Detail += "; ranges are not honoured"
		s.Advice = "a download that breaks off begins anew there: nothing can be done here"
	}
	return s
}

// referrers finds out how the registry lists signatures and SBOMs.
func (p *probe) referrers(ctx context.Context) Step {
	list, tagged, err := p.endpoint.remote.AllReferrers(withKind(ctx, KindReferrers), p.repo, p.found.Digest)
	switch {
	case err != nil:
		return p.bad(err)
	case tagged:
		return good("the registry has no referrers API; Berth uses the referrers tag, which is fine; %d referrers", len(list))
	}
	return good("the registry has the referrers API; %d referrers", len(list))
}

// tags looks whether tags can be listed.
func (p *probe) tags(ctx context.Context) Step {
	for tag, err := range p.endpoint.remote.Tags(withKind(ctx, KindTags), p.repo, "") {
		if err != nil {
			s := p.bad(err)
			s.Advice = strings.TrimPrefix(s.Advice+"; pulls do not need this list", "; ")
			return s
		}
		return good("they are listed; the first is %s", tag)
	}
	return good("they are listed, and there are none")
}

// words is an error for an administrator: all that is known, without codes.
func words(err error) string {
	var coded *registry.Error
	if !errors.As(err, &coded) {
		var withURL *url.Error
		if errors.As(err, &withURL) {
			err = withURL.Err // a query may hold what is nobody's business
		}
		return err.Error()
	}
	text := coded.Code.String()
	if coded.Detail != nil {
		text = fmt.Sprint(coded.Detail)
	}
	if coded.Err != nil {
		text += " (" + coded.Err.Error() + ")"
	}
	return text
}

// advice is what to do about an error.
func (p *probe) advice(err error) string {
	var unknownCA x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var old x509.CertificateInvalidError
	var name *net.DNSError
	var coded *registry.Error
	errors.As(err, &coded)
	switch {
	case errors.Is(err, errNotPublic):
		return "if it is meant to lead there, name its network in the upstream's networks"
	case errors.Is(err, credential.ErrRefused):
		return "check the user name and the password or token; many registries want an access token in place of the password"
	case errors.As(err, &unknownCA):
		return "if its authority is your own, name its certificates in the upstream's tls.ca_file"
	case errors.As(err, &wrongName), errors.As(err, &old):
		return "those who run the registry must renew its certificate, or the address is not the one that it has"
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "it speaks no TLS: if it is not meant to, write http:// and allow plain_http"
	case errors.As(err, &name):
		return "check the name in the upstream's address, and this machine's resolver"
	case coded == nil || coded.Code == registry.Unavailable:
		return "check that this machine can reach it, through http_proxy where it must, and try again"
	case errors.Is(err, registry.ErrRefused):
		return "check the repository's name; if it is private, configure a credential that may read it"
	case coded.Code == registry.TooManyRequests:
		return "wait" + until(coded) + "; who logs in may often ask more"
	case coded.Code == registry.ManifestUnknown, coded.Code == registry.NameUnknown, coded.Code == registry.BlobUnknown:
		return "check the names of repository and tag, as the upstream writes them: Docker's own images are below library/"
	}
	return ""
}

func until(e *registry.Error) string {
	if e.Limit == nil || e.Limit.RetryAfter <= 0 {
		return ""
	}
	return " " + e.Limit.RetryAfter.Round(time.Second).String()
}

// traceKey is that of a *trace in a context.
type traceKey struct{}

// trace is what happened to the requests of a context.
type trace struct {
	mu   sync.Mutex
	hops []hop
}

// hop is a request that was answered.
type hop struct {
	role   Role
	host   string
	method string
	status int
}

func traced(ctx context.Context) (context.Context, *trace) {
	t := &trace{}
	return context.WithValue(ctx, traceKey{}, t), t
}

// note adds a request to the trace of its context, if there is one.
func note(ctx context.Context, c Call) {
	if t, ok := ctx.Value(traceKey{}).(*trace); ok {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.hops = append(t.hops, hop{c.Role, c.Host, c.Method, c.Status})
	}
}

func (t *trace) any(is func(hop) bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.hops {
		if is(h) {
			return true
		}
	}
	return false
}

// last is the request behind which there was none.
func (t *trace) last() (hop, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.hops) == 0 {
		return hop{}, false
	}
	return t.hops[len(t.hops)-1], true
}
