package credential

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestParseChallenges(t *testing.T) {
	type m = map[string]string
	for what, c := range map[string]struct {
		headers []string
		want    []challenge
	}{
		"none": {nil, nil},
		"docker hub": {[]string{`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"`},
			[]challenge{{"bearer", m{"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:a/b:pull,push"}}}},
		"two in one header": {[]string{`Bearer realm="https://x/t", service="s", Basic realm="y"`},
			[]challenge{{"bearer", m{"realm": "https://x/t", "service": "s"}}, {"basic", m{"realm": "y"}}}},
		"two headers":   {[]string{`Bearer realm="x"`, `Basic realm="y"`}, []challenge{{"bearer", m{"realm": "x"}}, {"basic", m{"realm": "y"}}}},
		"bare schemes":  {[]string{`Negotiate, Basic`, `NTLM`}, []challenge{{"negotiate", m{}}, {"basic", m{}}, {"ntlm", m{}}}},
		"token68":       {[]string{`Negotiate YII/+abc==, Basic realm=a`}, []challenge{{"negotiate", m{}}, {"basic", m{"realm": "a"}}}},
		"token68, one":  {[]string{`Negotiate abc=, Basic realm=a`}, []challenge{{"negotiate", m{}}, {"basic", m{"realm": "a"}}}},
		"unquoted":      {[]string{`bearer realm=https://x/t,service=s`}, []challenge{{"bearer", m{"realm": "https://x/t", "service": "s"}}}},
		"no commas":     {[]string{`Bearer realm="x" service="s"`}, []challenge{{"bearer", m{"realm": "x", "service": "s"}}}},
		"spaces":        {[]string{`  Bearer   realm = "x" ,  service= "s"  `}, []challenge{{"bearer", m{"realm": "x", "service": "s"}}}},
		"escapes":       {[]string{`Basic realm="a\"b\\c, Bearer realm=d"`}, []challenge{{"basic", m{"realm": `a"b\c, Bearer realm=d`}}}},
		"names' case":   {[]string{`BEARER Realm="x",REALM="y"`}, []challenge{{"bearer", m{"realm": "x"}}}},
		"open quote":    {[]string{`Bearer realm="x",service="s, Basic realm=y`}, []challenge{{"bearer", m{"realm": "x"}}}},
		"nonsense":      {[]string{`"x", =, \`, `,,, ,`}, nil},
		"empty value":   {[]string{`Bearer realm="",scope=""`}, []challenge{{"bearer", m{"realm": "", "scope": ""}}}},
		"too long":      {[]string{`Bearer realm="` + strings.Repeat("x", maxChallengeLength) + `"`, "Basic"}, []challenge{{"basic", m{}}}},
		"behind a tail": {[]string{`Bearer realm="x";foo, Basic`}, []challenge{{"bearer", m{"realm": "x"}}}},
	} {
		if got := parseChallenges(c.headers); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
		}
	}
}

func TestChallengesAreBounded(t *testing.T) {
	if n := len(parseChallenges([]string{strings.Repeat("a,", 1000)})); n != maxChallenges {
		t.Errorf("%d challenges of a header", n)
	}
	headers := make([]string, 100)
	for i := range headers {
		headers[i] = fmt.Sprintf("s%d", i)
	}
	if n := len(parseChallenges(headers)); n != maxChallengeHeaders {
		t.Errorf("%d challenges of as many headers", n)
	}
	var long strings.Builder
	for i := range 100 {
		fmt.Fprintf(&long, ",p%d=1", i)
	}
	if got := parseChallenges([]string{"Bearer " + long.String()[1:]}); len(got) != 1 || len(got[0].params) != maxParameters {
		t.Errorf("got %v", got)
	}
}

// FuzzChallenges: what was read is read the same when it is written properly.
func FuzzChallenges(f *testing.F) {
	for _, seed := range []string{`Bearer realm="https://x/t",service="s",scope="repository:a:pull,push", Basic realm="y"`,
		`Negotiate abc==`, `Basic realm="a\"b`, `a=b`, `Bearer realm = x , y`, "\x00,\xff=\"\"", `x ="="`, `x y=, z`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		read := parseChallenges([]string{header})
		if len(read) > maxChallenges {
			t.Fatalf("%d challenges", len(read))
		}
		var written []string
		for _, c := range read {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) || len(c.params) > maxParameters {
				t.Fatalf("%q", c)
			}
			var params []string
			for name, value := range c.params {
				params = append(params, name+`="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)+`"`)
			}
			written = append(written, c.scheme+" "+strings.Join(params, ","))
		}
		again := parseChallenges([]string{strings.Join(written, ", ")})
		if len(strings.Join(written, ", ")) <= maxChallengeLength && len(read) > 0 && !reflect.DeepEqual(read, again) {
			t.Fatalf("%q became %q", read, again)
		}
	})
}
