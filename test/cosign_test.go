package test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

func TestCosign(t *testing.T) { onBoth(t, testCosign) }

func testCosign(t *testing.T, at *place) {
	cosign := newClient(t, "cosign").at(at)
	cosign.env = append(cosign.env, "COSIGN_PASSWORD=x", "COSIGN_EXPERIMENTAL=1",
		// no look-up of a trust root outside of this machine
		"TUF_MIRROR=http://127.0.0.1:1", "TUF_ROOT="+filepath.Join(cosign.home, "tuf"))
	cosign.run("generate-key-pair")
	sign := []string{"sign", "--key", "cosign.key", "--tlog-upload=false", "--allow-http-registry", "-y"}
	verify := []string{"verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--allow-http-registry"}

	for i, mode := range []struct {
		name, sign, verify string
	}{
		{"tag", "--registry-referrers-mode=legacy", "--experimental-oci11=false"},
		{"referrers", "--registry-referrers-mode=oci-1-1", "--experimental-oci11=true"},
	} {
		t.Run(mode.name, func(t *testing.T) {
			r := newRepo(t, at, "cosign/"+mode.name)
			image := r.pushImage("v1", uint64(800+i)) // distinct images: one blob store
			verifyHere := append(verify[:len(verify):len(verify)], mode.verify, r.at(image.Digest))
			cosign.fails(verifyHere...)

			cosign.run(append(sign[:len(sign):len(sign)], mode.sign, r.at(image.Digest))...)
			var signed []struct {
				Critical struct {
					Image struct {
						Digest string `json:"docker-manifest-digest"`
					}
				}
			}
			if err := json.Unmarshal([]byte(cosign.run(verifyHere...)), &signed); err != nil {
				t.Fatal(err)
			}
			equal(t, "signatures", len(signed), 1)
			equal(t, "signed digest", signed[0].Critical.Image.Digest, image.Digest)

			tag := strings.Replace(image.Digest, ":", "-", 1)
			if mode.name == "tag" {
				r.verify(tag + ".sig")
				r.hasTags(tag+".sig", "v1")
			} else {
				r.hasTags("v1") // no fallback tag: the referrers API is there
			}
		})
	}
}
