package oci_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/berth-registry/berth/internal/oci"
)

const (
	configType  = "application/vnd.oci.image.config.v1+json"
	layerType   = "application/vnd.oci.image.layer.v1.tar"
	foreignType = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
)

var (
	configDigest = oci.SHA256.FromBytes([]byte("config"))
	layerDigest  = oci.SHA256.FromBytes([]byte("layer"))
	childDigest  = oci.SHA512.FromBytes([]byte("child"))
)

func descriptor(mediaType string, d oci.Digest) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":7}`, mediaType, d)
}

// image and index build documents; fields are put behind those that must be.
func image(fields ...string) string {
	all := append([]string{`"schemaVersion":2`, `"config":` + descriptor(configType, configDigest)}, fields...)
	return "{" + strings.Join(all, ",") + "}"
}

func index(fields ...string) string {
	all := append([]string{`"schemaVersion":2`, `"manifests":[` + descriptor(oci.MediaTypeImage, childDigest) + `]`}, fields...)
	return "{" + strings.Join(all, ",") + "}"
}

func layers(descriptors ...string) string { return `"layers":[` + strings.Join(descriptors, ",") + `]` }

func digests(list []oci.Descriptor) []oci.Digest {
	var all []oci.Digest
	for _, d := range list {
		all = append(all, d.Digest)
	}
	return all
}

func TestParseImage(t *testing.T) {
	subject := oci.SHA256.FromBytes([]byte("subject"))
	layer, foreign := descriptor(layerType, layerDigest), descriptor(foreignType, childDigest)
	content := image(layers(layer, foreign, layer, descriptor(layerType, configDigest)),
		`"subject":`+descriptor(oci.MediaTypeImage, subject), `"annotations":{"k":"v"}`)
	for _, mediaType := range []string{oci.MediaTypeImage, oci.MediaTypeDockerImage} {
		m, err := oci.ParseManifest(mediaType, []byte(content))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := digests(m.Blobs), []oci.Digest{configDigest, layerDigest}; !slices.Equal(got, want) {
			t.Errorf("blobs %v, want %v", got, want)
		}
		if got, want := digests(m.Foreign), []oci.Digest{childDigest}; !slices.Equal(got, want) {
			t.Errorf("foreign %v, want %v", got, want)
		}
		if m.MediaType != mediaType || m.ArtifactType != configType || m.Subject.Digest != subject || m.Annotations["k"] != "v" || m.Manifests != nil {
			t.Errorf("parsed as %+v", m)
		}
	}
}

func TestParseIndex(t *testing.T) {
	child := descriptor(oci.MediaTypeImage, childDigest)
	for _, mediaType := range []string{oci.MediaTypeIndex, oci.MediaTypeDockerList} {
		content := `{"schemaVersion":2,"mediaType":"` + mediaType + `","manifests":[` + child + `,` + child + `]}`
		m, err := oci.ParseManifest("", []byte(content))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := digests(m.Manifests), []oci.Digest{childDigest}; !slices.Equal(got, want) {
			t.Errorf("children %v, want %v", got, want)
		}
		if m.MediaType != mediaType || m.ArtifactType != "" || m.Subject != nil || m.Blobs != nil {
			t.Errorf("parsed as %+v", m)
		}
	}
}

func TestArtifactType(t *testing.T) {
	for _, c := range []struct{ mediaType, content, want string }{
		{oci.MediaTypeImage, image(), configType},
		{oci.MediaTypeImage, image(`"artifactType":""`), configType},
		{oci.MediaTypeImage, image(`"artifactType":"application/x.sbom"`), "application/x.sbom"},
		{oci.MediaTypeIndex, index(), ""},
		{oci.MediaTypeIndex, index(`"artifactType":"application/x.bundle"`), "application/x.bundle"},
	} {
		m, err := oci.ParseManifest(c.mediaType, []byte(c.content))
		if err != nil || m.ArtifactType != c.want {
			t.Errorf("artifact type of %s: %+v, %v; want %q", c.content, m, err, c.want)
		}
	}
}

func TestForeignLayers(t *testing.T) {
	foreign, layer := descriptor(foreignType, layerDigest), descriptor(layerType, layerDigest)
	for name, content := range map[string]string{
		"foreign first": image(layers(foreign, layer)),
		"foreign last":  image(layers(layer, foreign)),
		"as the config": `{"schemaVersion":2,"config":` + foreign + `}`,
	} {
		m, err := oci.ParseManifest(oci.MediaTypeImage, []byte(content))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !slices.Contains(digests(m.Blobs), layerDigest) || len(m.Foreign) != 0 {
			t.Errorf("%s: a blob that must be present is optional: %+v", name, m)
		}
	}
}

func TestManifestMediaType(t *testing.T) {
	for _, c := range []struct{ header, body, want string }{
		{oci.MediaTypeImage, "", oci.MediaTypeImage},
		{"", oci.MediaTypeImage, oci.MediaTypeImage},
		{oci.MediaTypeImage, oci.MediaTypeImage, oci.MediaTypeImage},
		{oci.MediaTypeImage + "; charset=utf-8", oci.MediaTypeImage, oci.MediaTypeImage},
		{strings.ToUpper(oci.MediaTypeImage), "", oci.MediaTypeImage},
		{"", "", ""},
		{oci.MediaTypeDockerImage, oci.MediaTypeImage, ""},
		{oci.MediaTypeIndex, oci.MediaTypeImage, ""},
		{oci.MediaTypeImage, oci.MediaTypeIndex, ""},
		{"", strings.ToUpper(oci.MediaTypeImage), ""},
		{"", oci.MediaTypeImage + "; charset=utf-8", ""},
		{"application/json", "", ""},
		{"application/json", oci.MediaTypeImage, ""},
		{"application/vnd.docker.distribution.manifest.v1+prettyjws", "", ""},
		{"/;;", oci.MediaTypeImage, ""},
		{"", strings.Repeat("x", 1<<20), ""},
	} {
		content := image()
		if c.body != "" {
			content = image(`"mediaType":"` + c.body + `"`)
		}
		m, err := oci.ParseManifest(c.header, []byte(content))
		if c.want == "" {
			wantRefused(t, "header "+c.header, m, err)
		} else if err != nil || m.MediaType != c.want {
			t.Errorf("header %q, body %q: %+v, %v", c.header, c.body, m, err)
		}
	}
}

func wantRefused(t *testing.T, what string, m *oci.Manifest, err error) {
	t.Helper()
	if !errors.Is(err, oci.ErrManifest) || m != nil {
		t.Errorf("%.80q: %v, %v; want a refusal", what, m, err)
	} else if len(err.Error()) > 1000 {
		t.Errorf("%.80q: the error has %d bytes", what, len(err.Error()))
	}
}

func TestManifestRefused(t *testing.T) {
	layer := descriptor(layerType, layerDigest)
	nested := func(n int) string { return image(`"x":` + strings.Repeat("[", n) + strings.Repeat("]", n)) }
	for name, content := range map[string]string{
		"nothing":                          "",
		"white space":                      " \n",
		"not JSON":                         image()[1:],
		"cut short":                        image()[:len(image())-1],
		"two values":                       image() + image(),
		"an array":                         "[" + image() + "]",
		"null":                             "null",
		"a string":                         `"x"`,
		"a byte order mark":                "\ufeff" + image(),
		"invalid UTF-8":                    image("\"x\":\"\xff\""),
		"UTF-8 of a surrogate":             image("\"x\":\"\xed\xa0\x80\""),
		"nested deeply":                    nested(64),
		"nested very deeply":               nested(1 << 20),
		"schemaVersion 1":                  strings.Replace(image(), `n":2`, `n":1`, 1),
		"schemaVersion 3":                  strings.Replace(image(), `n":2`, `n":3`, 1),
		"schemaVersion 2.0":                strings.Replace(image(), `n":2`, `n":2.0`, 1),
		"schemaVersion as text":            strings.Replace(image(), `n":2`, `n":"2"`, 1),
		"no schemaVersion":                 strings.Replace(image(), `"schemaVersion":2,`, ``, 1),
		"no config":                        `{"schemaVersion":2,` + layers(layer) + `}`,
		"config null":                      `{"schemaVersion":2,"config":null}`,
		"config of another kind":           `{"schemaVersion":2,"config":"x"}`,
		"layers of another kind":           image(`"layers":{}`),
		"a layer null":                     image(layers("null")),
		"a layer without digest":           image(layers(`{"mediaType":"x/y","size":1}`)),
		"a layer of another algorithm":     image(layers(`{"mediaType":"x/y","size":1,"digest":"md5:00"}`)),
		"a digest with upper case":         image(layers(strings.Replace(layer, "sha256:", "sha256:A", 1))),
		"negative size":                    image(layers(strings.Replace(layer, `"size":7`, `"size":-1`, 1))),
		"size over int64":                  image(layers(strings.Replace(layer, `"size":7`, `"size":9223372036854775808`, 1))),
		"size of a million digits":         image(layers(strings.Replace(layer, `"size":7`, `"size":`+strings.Repeat("9", 1<<20), 1))),
		"fractional size":                  image(layers(strings.Replace(layer, `"size":7`, `"size":1.5`, 1))),
		"a bad descriptor behind a repeat": image(layers(layer, strings.Replace(layer, `"size":7`, `"size":-1`, 1))),
		"long media type of a layer":       image(layers(descriptor(strings.Repeat("x", 256), layerDigest))),
		"NUL in artifactType":              image(`"artifactType":"a\u0000b"`),
		"long artifactType":                image(`"artifactType":"` + strings.Repeat("x", 256) + `"`),
		"a bad subject":                    image(`"subject":{"digest":"x"}`),
		"annotations not text":             image(`"annotations":{"a":1}`),
		"data not base64":                  image(layers(strings.Replace(layer, `"size":7`, `"size":7,"data":"!"`, 1))),
		"image with manifests":             image(`"manifests":[]`),
		"repeated key":                     image(`"schemaVersion":2`),
		"repeated key, escaped":            image(`"\u0073chemaVersion":2`),
		"repeated key in a layer":          image(layers(strings.Replace(layer, `"size":7`, `"size":7,"size":8`, 1))),
		"repeated key in annotations":      image(`"annotations":{"a":"1","\u0061":"2"}`),
		"repeated key in unknown":          image(`"x":{"y":[{"z":1,"z":1}]}`),
		"repeated surrogate key":           image(`"x":{"\ud83d\ude00":1,"😀":1}`),
		"key in another case":              image(`"Layers":[]`),
		"key in another case, escaped":     image(`"\u004cayers":[]`),
		"key folded by Unicode":            image(`"layer` + "ſ" + `":[]`),
		"key folded in a descriptor":       image(layers(strings.Replace(layer, `"size":7`, `"size":7,"Digest":"x"`, 1))),
		"key folded beside annotations":    image(`"annotations":{"k":"v"},"Subject":{}`),
		"too many annotations":             image(`"annotations":{` + strings.Join(pairs(10_001), ",") + `}`),
		"too many references":              image(layers(distinct(10_000)...)),
		"too many values, ignored":         image(`"x":[` + strings.Repeat("0,", 200_000) + `0]`),
		"too many layers, null":            image(`"layers":[` + strings.Repeat("null,", 200_000) + `null]`),
		"too many empty arrays":            image(`"x":[` + strings.Repeat("[],", 100_000) + `[]]`),
	} {
		m, err := oci.ParseManifest(oci.MediaTypeImage, []byte(content))
		wantRefused(t, name, m, err)
	}
}

func TestIndexRefused(t *testing.T) {
	for name, content := range map[string]string{
		"no manifests":       `{"schemaVersion":2}`,
		"manifests null":     `{"schemaVersion":2,"manifests":null}`,
		"an index of images": index(`"config":` + descriptor(configType, configDigest)),
		"with layers":        index(`"layers":[]`),
		"an image":           image(),
		"a bad child":        `{"schemaVersion":2,"manifests":[{}]}`,
		"too many children":  `{"schemaVersion":2,"manifests":[` + strings.Join(distinct(10_001), ",") + `]}`,
	} {
		m, err := oci.ParseManifest(oci.MediaTypeIndex, []byte(content))
		wantRefused(t, name, m, err)
	}
}

func TestManifestAccepted(t *testing.T) {
	layer := descriptor(layerType, layerDigest)
	for name, content := range map[string]string{
		"no layers":                         image(),
		"layers null":                       image(`"layers":null`),
		"space all around":                  " \r\n\t" + image() + "\n ",
		"unknown fields":                    image(`"x":{"y":[1,2.5,null,true,{"z":{}}]}`),
		"annotations that look like fields": image(`"annotations":{"Layers":"a","CONFIG":"b","schemaVersion":"1","annotations":"c","{":"}","\"":"["}`),
		"annotations of a layer":            image(layers(strings.Replace(layer, `"size":7`, `"size":7,"annotations":{"Size":"8","digest":"x"}`, 1))),
		"text that looks like keys":         image(`"x":"\"schemaVersion\": {[,","y":["schemaVersion","a","a"]`),
		"the same key in two objects":       image(`"x":[{"a":1},{"a":1}],"a":{"a":{}}`),
		"nested as deeply as allowed":       image(`"x":` + strings.Repeat("[", 63) + strings.Repeat("]", 63)),
		"the largest size":                  image(layers(strings.Replace(layer, `"size":7`, `"size":9223372036854775807`, 1))),
		"size zero":                         image(layers(strings.Replace(layer, `"size":7`, `"size":0`, 1))),
		"embedded data":                     image(layers(strings.Replace(layer, `"size":7`, `"size":7,"data":"YWJj"`, 1))),
		"as many references as allowed":     image(layers(distinct(9_999)...)),
	} {
		if _, err := oci.ParseManifest(oci.MediaTypeImage, []byte(content)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func pairs(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(`"k%d":""`, i)
	}
	return list
}

func distinct(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = descriptor(layerType, oci.SHA256.FromBytes(fmt.Append(nil, i)))
	}
	return list
}

func FuzzManifest(f *testing.F) {
	layer := descriptor(layerType, layerDigest)
	for _, seed := range []string{
		image(layers(layer, descriptor(foreignType, childDigest))), index(), image(`"Layers":[]`), image(`"\u006cayers":[]`),
		image(`"annotations":{"Layers":"x"}`), image(`"subject":` + layer), index(`"config":{}`), `{"a":"\\"}`, `[{"a":[`, "\"\xff\"",
		image(`"mediaType":"` + oci.MediaTypeImage + `"`), index(`"mediaType":"` + oci.MediaTypeIndex + `"`),
	} {
		f.Add("", []byte(seed))
		f.Add(oci.MediaTypeImage, []byte(seed))
		f.Add(oci.MediaTypeIndex+"; a=b", []byte(seed))
	}
	f.Fuzz(checkParsed)
}

// checkParsed holds a manifest that passed against a plain reading of it.
func checkParsed(t *testing.T, contentType string, content []byte) {
	m, err := oci.ParseManifest(contentType, content)
	if err != nil {
		if m != nil || !errors.Is(err, oci.ErrManifest) {
			t.Fatalf("%v, %v", m, err)
		}
		return
	}
	var plain map[string]json.RawMessage
	if err := json.Unmarshal(content, &plain); err != nil {
		t.Fatalf("passes, but encoding/json refuses: %v", err)
	}
	if string(plain["schemaVersion"]) != "2" {
		t.Fatalf("schemaVersion %s passes", plain["schemaVersion"])
	}
	want := plainReferences(t, plain)
	got := map[oci.Digest]int{}
	for _, list := range [][]oci.Descriptor{m.Blobs, m.Foreign, m.Manifests} {
		for _, d := range list {
			if _, err := oci.ParseDigest(string(d.Digest)); err != nil || d.Size < 0 {
				t.Fatalf("descriptor %+v passes", d)
			}
			if got[d.Digest]++; !want[d.Digest] || got[d.Digest] > 1 {
				t.Fatalf("%s stands %d times in the result; in the content: %v", d.Digest, got[d.Digest], want[d.Digest])
			}
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d references, encoding/json sees %d", len(got), len(want))
	}
}

// plainReferences collects the digests that the exact keys name.
func plainReferences(t *testing.T, plain map[string]json.RawMessage) map[oci.Digest]bool {
	t.Helper()
	all := map[oci.Digest]bool{}
	for _, key := range []string{"config", "layers", "manifests"} {
		raw := plain[key]
		if key == "config" && raw != nil {
			raw = slices.Concat([]byte("["), raw, []byte("]"))
		}
		var list []map[string]json.RawMessage
		if raw != nil {
			if err := json.Unmarshal(raw, &list); err != nil {
				t.Fatalf("%s: %v", key, err)
			}
		}
		for _, d := range list {
			var digest oci.Digest
			if d == nil {
				continue // config: null beside manifests
			}
			if err := json.Unmarshal(d["digest"], &digest); err != nil {
				t.Fatalf("digest %s: %v", d["digest"], err)
			}
			all[digest] = true
		}
	}
	return all
}

func BenchmarkParseManifest(b *testing.B) {
	large := image(layers(distinct(20)...), `"annotations":{"x":"`+strings.Repeat("x", 4<<20)+`"}`)
	for name, content := range map[string]string{"small": image(layers(distinct(10)...)), "4MiB": large, "10000 layers": image(layers(distinct(9_999)...))} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := oci.ParseManifest(oci.MediaTypeImage, []byte(content)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
