package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
)

// stuff is content that can be made again from its seed, so that no test holds
// or stores it.
type stuff struct {
	seed uint64
	size int64
}

// from reads the content from an offset to its end.
func (s stuff) from(offset int64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], s.seed)
	src := rand.NewChaCha8(key)
	io.CopyN(io.Discard, src, offset)
	return io.LimitReader(src, s.size-offset)
}

func (s stuff) bytes() []byte {
	b, _ := io.ReadAll(s.from(0)) // the generator returns no errors
	return b
}

func (s stuff) digest() string {
	h := sha256.New()
	io.Copy(h, s.from(0))
	return fmt.Sprintf("sha256:%x", h.Sum(nil))
}

// layerTar is an uncompressed layer with one file.
func layerTar(name string, content []byte) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Format: tar.FormatUSTAR})
	w.Write(content)
	w.Close()
	return buf.Bytes()
}

func gzipped(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

// pushImage pushes a runnable OCI image with one layer per seed.
func (r *repo) pushImage(tag string, seeds ...uint64) descriptor {
	r.t.Helper()
	var layers []descriptor
	var diffIDs []string
	for _, seed := range seeds {
		plain := layerTar(fmt.Sprintf("file-%d", seed), stuff{seed, 100_000}.bytes())
		layer := r.must(r.api.pushBlob(r.name, gzipped(plain)))
		layer.MediaType = "application/vnd.oci.image.layer.v1.tar+gzip"
		layers, diffIDs = append(layers, layer), append(diffIDs, digestOf(plain))
	}
	config := r.must(r.api.pushBlob(r.name, asJSON(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"/none"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})))
	config.MediaType = "application/vnd.oci.image.config.v1+json"
	return r.must(r.api.pushManifest(r.name, tag, ociManifest, asJSON(map[string]any{
		"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": layers,
	})))
}

func asJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only literals of this package come here
	}
	return b
}
