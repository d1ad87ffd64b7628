package config
import ("testing";"strings";"time";"fmt")
func TestHostile(t *testing.T){
 n := 1<<20
 var deep strings.Builder
 for i:=0; deep.Len()<n; i++ { deep.WriteString(strings.Repeat(" ", i)+"a:\n") }
 var many strings.Builder
 for i:=0; many.Len()<n; i++ { fmt.Fprintf(&many,"k%d: 1\n", i) }
 for name, s := range map[string]string{
  "open[": strings.Repeat("[", n), "open{": strings.Repeat("{", n), "{a:": strings.Repeat("{a:", n/3), "dash": strings.Repeat("- ", n/2), "dashnl": strings.Repeat("-\n", n/2),
  "a: a:": strings.Repeat("a: ", n/3), ": :": strings.Repeat(": ", n/2), "? ?": strings.Repeat("? ", n/2), "deep": deep.String(), "many": many.String(),
  "quote": "a: \""+strings.Repeat("x", n-10), "esc": "a: \""+strings.Repeat("\\n", n/2-10)+"\"", "sq": "a: '"+strings.Repeat("''", n/2-10)+"'", "nl": strings.Repeat("\n", n), "hash": strings.Repeat("#", n), "hashes": strings.Repeat("#\n", n/2), "lit": "a: |\n"+strings.Repeat(" x\n", n/3), "multi": "a: x\n"+strings.Repeat(" x\n", n/3), "dup": strings.Repeat("a: 1\n", n/5), "x": strings.Repeat("x", n), "docs": strings.Repeat("---\n", n/4), "rules": "repositories:\n"+strings.Repeat("- match: a\n", n/11-2), "flow": "repositories: ["+strings.Repeat("{match: a},", n/11-2)+"]", "xcolon": strings.Repeat("x:\n", n/3), "unic": "a: "+strings.Repeat("é", n/2-3), "nul": strings.Repeat("\x00", n), "tab": strings.Repeat("\t", n), "bang": strings.Repeat("!", n), "amp": strings.Repeat("&a ", n/3), "pct": strings.Repeat("%", n), "close": strings.Repeat("]",n), "commas": "a: ["+strings.Repeat(",",n-10)+"]", "foldq": "a: \""+strings.Repeat("x\n ", n/3-10)+"\"",
 }{
  l := newLoader(); f := &file{loader:l,name:"f"}
  st:=time.Now()
  done := make(chan struct{})
  go func(){ f.read([]byte(s[:min(len(s),n)])); close(done)}()
  select { case <-done: case <-time.After(40*time.Second): t.Errorf("%s HANGS", name); continue }
  d:=time.Since(st)
  m := fmt.Sprint(l.problems); if len(m)>150 {m=m[:150]}
  t.Logf("%-8s %v %s", name, d.Round(time.Millisecond), m)
 }
}
