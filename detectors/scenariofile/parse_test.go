package scenariofile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/detectors/scenariofile"
	"github.com/signindiag/signindiag/schemas"
)

// TestErrors checks that a mistake is reported with its line, what was found and what was expected.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name, src, want string
	}{
		{"unknown statement", "user ada\nwhen 09:00 ada fails 50126", `t.txt:2: unknown statement when; expected one of at, expect, user,`},
		{"no code", "at 09:00 ada fails", `t.txt:1: found the end of the line; expected an error code`},
		{"code with letters", "at 09:00 ada fails AADSTS50126", `column 20: found AADSTS50126; expected an error code without its letters`},
		{"no verb", "at 09:00 ada", `expected succeeds, fails CODE or interrupted CODE`},
		{"bad time", "at 9 o'clock ada fails 50126", `column 4: found 9; expected a time (UTC), as in 09:00`},
		{"hour 25", "at 25:00 ada fails 50126", `found 25:00; expected a time`},
		{"bad day", "at day 0 09:00 ada fails 50126", `found day 0; expected day 1 to day 400`},
		{"bad address", "at 09:00 ada fails 50126 from home", `found from home; expected an address such as 203.0.113.7`},
		{"unknown word", "at 09:00 ada fails 50126 form 203.0.113.7", `column 26: found form; expected one of from, app,`},
		{"missing value", "at 09:00 ada fails 50126 app", `found the end of the line; expected its value, as in: app "Exchange Online"`},
		{"twice", "at 09:00 ada fails 50126 app A app B", `column 32: found app a second time; expected it once`},
		{"undeclared policy", `at 09:00 ada fails 53003 policy "X"`, `there is no policy "X" in the tenant; expected it declared above`},
		{"policy twice", "policy A block\npolicy A mfa", `t.txt:2: the policy "A" is already known in tenant contoso`},
		{"unknown control", "policy A blok", `column 10: found blok; expected a control (block, mfa,`},
		{"open quote", "at 09:00 ada fails 50126 app \"Exchange", `column 30: the quote is not closed on this line`},
		{"text behind quote", `at 09:00 ada fails 50126 app "A"B`, `right behind a quoted text; expected a space`},
		{"user twice", "user ada\nuser ada", `t.txt:2: ada is already known in tenant contoso`},
		{"reserved", "user incident", `incident is a word of the language; expected another name`},
		{"unknown pair", "user ada mail=x", `column 10: found mail=x; expected one of upn=VALUE, id=VALUE`},
		{"request twice", "at 09:00 ada succeeds request r1\nat 09:01 ada succeeds request r1", `t.txt:2: request r1 is already the name of a record of line 1`},
		{"no such record", "at 09:00 repeat r1", `there is no record r1 above`},
		{"repeat changed", "at 09:00 ada succeeds\nat 09:01 repeat last app X", `a repeat is exactly the same record`},
		{"repeat before it happened", "at 09:00 ada succeeds\nat 08:00 repeat last", `the record would come again at 2026-03-02 08:02:00, before it came at 2026-03-02 09:02:00`},
		{"restart first", "restart", `restart stands before the first sign-in`},
		{"too many", "at 09:00 ada succeeds x100001", `expected x1 to x100000`},
		{"too many in all", "at 09:00 ada succeeds x100000 every 1s\nat 09:00 ada succeeds", `t.txt:2: more than 100000 records`},
		{"threshold", "threshold repeated_failures count=1", `threshold repeated_failures.count is 1, want a whole number from 2 to 64`},
		{"unknown threshold", "threshold spray count=1", `expected a detection, one of repeated_failures, `},
		{"unknown scenario", "user ada\nexpect ada wrong_pasword", `t.txt:2: unknown scenario "wrong_pasword"; expected one of`},
		{"unknown scenario value", "user ada\nexpect ada scenario=wrong_pasword", `unknown scenario "wrong_pasword"`},
		{"unknown kind", "expect incident spray", `unknown kind of incident "spray"; expected one of password_spray`},
		{"unknown key", "user ada\nexpect ada verity=low", `column 12: unknown key "verity"; expected one of scenario, also`},
		{"impossible value", "user ada\nexpect ada severity=lo", `severity can never be "lo"; expected one of info, low`},
		{"unknown evidence", "user ada\nexpect ada evidence.polices=X", `unknown evidence "polices"`},
		{"nobody", "expect ada scenario=success", `nobody is called ada in tenant contoso`},
		{"nobody in that tenant", "user ada\ntenant north\nexpect ada scenario=success", `t.txt:3: nobody is called ada in tenant north`},
		{"no such request", "expect request r9 scenario=success", `no record is named r9`},
		{"nothing expected", "user ada\nexpect ada", `expected a scenario or at least one key=value`},
		{"no number", "expect diagnoses many", `found many; expected a number`},
		{"workload category", "principal backup\nat 09:00 backup succeeds category interactive", `category interactive does not suit backup`},
		{"operator alone", "user ada\nexpect ada =x", `column 12: found '='; expected a word before it`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := scenariofile.Parse("t.txt", []byte(c.src))
			var e *scenariofile.Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v, expected a *scenariofile.Error with %q", err, c.want)
			}
			if !strings.HasPrefix(e.Error(), "t.txt:") || !strings.Contains(e.Error(), c.want) || strings.Contains(e.Error(), "\n") {
				t.Errorf("error %q, expected one line with %q", e, c.want)
			}
		})
	}
}

// TestReadme runs the examples of README.md, and checks that it names every word of the language.
func TestReadme(t *testing.T) {
	src, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```scenario\n(.*?)```").FindAllSubmatch(src, -1)
	if len(examples) < 3 {
		t.Fatalf("%d examples in README.md, expected at least 3", len(examples))
	}
	for _, e := range examples {
		file, err := scenariofile.Parse("README.md", e[1])
		if err != nil {
			t.Errorf("%v in:\n%s", err, e[1])
			continue
		}
		result, err := scenariofile.Run(file, scenariofile.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range result.Failures {
			t.Errorf("%v\nin:\n%s", f, e[1])
		}
	}
	for _, word := range scenariofile.Words() {
		if !regexp.MustCompile("[`( ]" + regexp.QuoteMeta(word) + "[` ,]").Match(src) {
			t.Errorf("README.md does not tell of %q", word)
		}
	}
}

// TestExamplesOfModifiers parses every modifier as its own error message shows it.
func TestExamplesOfModifiers(t *testing.T) {
	for _, example := range scenariofile.Examples() {
		src := "policy \"Block old mail\" block clientType\nat 08:00 ada succeeds request r1\nat 09:00 ada fails 50126 " + example
		if strings.HasPrefix(example, "request") {
			src = strings.Replace(src, " request r1", "", 1)
		}
		file, err := scenariofile.Parse("t.txt", []byte(src))
		if err != nil {
			t.Errorf("%s: %v", example, err)
			continue
		}
		if n := file.Records(); n != 2 {
			t.Errorf("%s: %d records", example, n)
		}
	}
}

// TestFailureIsUnderstandable pins what a person reads when an expectation is not met.
func TestFailureIsUnderstandable(t *testing.T) {
	src := "user ada\nat 09:00 ada fails 50126 x4\nexpect ada repeated_failures count=5\nexpect incident password_spray\nexpect request r1 code=0\nat 10:00 ada fails 50034 request r1\nexpect diagnoses 7\n"
	file, err := scenariofile.Parse("story.txt", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	result, err := scenariofile.Run(file, scenariofile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var text, out bytes.Buffer
	if err := result.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if err := result.WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	if result.Passed() {
		t.Fatal("the run passed, expected failures")
	}
	for _, want := range []string{"FAIL story.txt: 5 records, 5 diagnoses", "story.txt:4: expectation not met\n    expected: expect incident password_spray\n    got:      no",
		"got:      2026-03-02 10:00:00 ada@example.org code=50034", "story.txt:7: expectation not met\n    expected: expect diagnoses 7\n    got:      5 diagnoses"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text does not hold %q:\n%s", want, text.String())
		}
	}
	var again scenariofile.Result
	if err := json.Unmarshal(out.Bytes(), &again); err != nil || len(again.Failures) != len(result.Failures) || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
		t.Errorf("JSON %s: %v", out.Bytes(), err)
	}
}

// TestMessages checks order, arrival and shift of the messages that a file sends.
func TestMessages(t *testing.T) {
	src := "delay 1m\nat 09:00 late 1h ada fails 50126 request r1\nat 09:05 ada succeeds x2 every 10s\nat 09:06 repeat last\n"
	file, err := scenariofile.Parse("t.txt", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	shift := 24 * time.Hour
	var lines []int
	var last time.Time
	var bodies [][]byte
	for _, m := range file.Messages(shift) {
		lines = append(lines, m.Line)
		if m.Time.Before(last) {
			t.Errorf("line %d arrives at %v, after %v", m.Line, m.Time, last)
		}
		last = m.Time
		bodies = append(bodies, m.Value)
		schemas.NewDecoder().Decode(m.Value, m.Time, func(_ int, d *schemas.Decoded) {
			if d.Kind != schemas.KindSignIn {
				t.Fatalf("%v: %v", d.Kind, d.Err)
			}
			if at := time.UnixMicro(d.SignIn.EventTime).UTC(); at.Day() != 3 || at.Hour() != 9 {
				t.Errorf("line %d happened at %v, expected the next day", m.Line, at)
			}
		})
	}
	if want := []int{3, 3, 4, 2}; len(lines) != 4 || lines[0] != want[0] || lines[1] != want[1] || lines[2] != want[2] || lines[3] != want[3] {
		t.Errorf("messages of lines %v, expected %v", lines, want)
	}
	if !bytes.Equal(bodies[1], bodies[2]) {
		t.Errorf("a repeat differs from its record:\n%s\n%s", bodies[1], bodies[2])
	}
	if want := time.Date(2026, 3, 3, 10, 1, 0, 0, time.UTC); !last.Equal(want) {
		t.Errorf("the late record arrives at %v, expected %v", last, want)
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(directory, "*.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(src))
	}
	f.Add("at 09:00 \xff fails 1 x3 every 1s\nat 09:00 update last fails 2 mfa fraud\nexpect no incident")
	f.Fuzz(func(t *testing.T, src string) {
		file, err := scenariofile.Parse("f.txt", []byte(src))
		if err != nil {
			var e *scenariofile.Error
			if !errors.As(err, &e) || e.Line < 1 || e.Line > strings.Count(src, "\n")+1 || e.Text == "" {
				t.Fatalf("error without a line of the file: %v", err)
			}
			return
		}
		if file.Records() > 200 {
			return
		}
		for _, m := range file.Messages(0) {
			if !json.Valid(m.Value) {
				t.Fatalf("line %d makes no JSON: %s", m.Line, m.Value)
			}
		}
	})
}
