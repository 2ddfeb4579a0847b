package settings

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signindiag/signindiag/detectors"
)

var update = flag.Bool("update", false, "write the table of README.md anew")

const tenantOne = "11111111-aaaa-4bbb-8ccc-000000000001"

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func load(t *testing.T, text string) *detectors.Settings {
	t.Helper()
	s, err := Load("settings.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheExampleLoads(t *testing.T) {
	s := load(t, string(read(t, "example.yaml")))
	want := detectors.DefaultThresholds()
	want.PasswordSpray.Users, want.PasswordSpray.Window = 6, 45*time.Minute
	want.RepeatedFailures.Count, want.RepeatedFailures.Window = 8, 48*time.Hour
	if d := cmp.Diff(want, s.Default.Thresholds); d != "" {
		t.Error(d)
	}
	one := s.Of(tenantOne)
	want.PasswordSpray.UsersHigh = 20
	if d := cmp.Diff(want, one.Thresholds); d != "" {
		t.Error("the tenant's thresholds:", d)
	}
	for address, trusted := range map[string][2]bool{ // default, tenant
		"203.0.113.9": {true, true}, "198.51.100.7": {true, true}, "198.51.100.8": {}, "2001:db8::1": {true, true}, "192.0.2.1": {false, true},
	} {
		if got := [2]bool{s.Default.Trusted(address), one.Trusted(address)}; got != trusted {
			t.Errorf("%s is trusted %v, want %v", address, got, trusted)
		}
	}
	if !one.Privileged("ROOT@contoso.example") || !one.Privileged("admin@contoso.example") || s.Default.Privileged("root@contoso.example") {
		t.Error("privileged users are not the default's and the tenant's")
	}
	if len(s.Default.Expectations) != 4 || len(one.Expectations) != 5 {
		t.Fatalf("%d and %d expectations, want 4 and 5", len(s.Default.Expectations), len(one.Expectations))
	}
	if d := cmp.Diff([]string{"2f1c0000-aaaa-4bbb-8ccc-000000000009", "admin@contoso.example", "root@contoso.example"}, one.Expectations[0].Users); d != "" {
		t.Error("the word privileged:", d)
	}
	x := one.Expectations[1]
	if x.Name != "A policy covers the finance application" || x.Expect != detectors.ExpectConditionalAccess ||
		len(x.Applications) != 2 || !cmp.Equal(x.ExceptAddresses, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })) {
		t.Errorf("%+v", x)
	}
	if !one.Expectations[4].NonInteractive || one.Expectations[0].NonInteractive {
		t.Error("non_interactive is not read")
	}
	if got := one.Expectations[3].Countries; !cmp.Equal(got, []string{"KP", "NO"}) {
		t.Error("countries:", got)
	}
}

// TestEveryValueCanBeSet sets each threshold to its least and its largest value, alone.
func TestEveryValueCanBeSet(t *testing.T) {
	for _, f := range detectors.ThresholdFields() {
		for _, text := range []string{f.Min, f.Max} {
			s, err := Load("x", fmt.Appendf(nil, "default:\n  thresholds:\n    %s:\n      %s: %s\n", f.Detection, f.Name, text))
			if err != nil && strings.Contains(err.Error(), "expected the other way round") {
				continue
			}
			if err != nil {
				t.Error(err)
				continue
			}
			want := detectors.DefaultThresholds()
			if err := f.Set(&want, text); err != nil {
				t.Fatal(err)
			}
			if got := f.Text(&s.Default.Thresholds); got != f.Text(&want) {
				t.Errorf("%s.%s: %s becomes %s", f.Detection, f.Name, text, got)
			}
		}
	}
}

// TestNothingSaidIsTheDefault: an empty file decides as no file does.
func TestNothingSaidIsTheDefault(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "default:\n", "default: {}\ntenants: {}\n", "\ufeffdefault:\n  thresholds:\n", "---\ntenants:\n"} {
		if s := load(t, text); s.Fingerprint() != detectors.DefaultSettings().Fingerprint() {
			t.Errorf("%q has another fingerprint", text)
		}
	}
}

// TestFingerprintFollowsWhatIsSaid: another order or wording of the same settings is no other epoch, another value is.
func TestFingerprintFollowsWhatIsSaid(t *testing.T) {
	a := load(t, "default:\n  trusted_addresses: [203.0.113.0/24, 198.51.100.7]\n  privileged_users: [B@contoso.example, a@contoso.example]\n  thresholds: {repeated_failures: {window: 24h}}\n")
	b := load(t, "# the same\ndefault:\n  thresholds:\n    repeated_failures:\n      window: 1d\n  privileged_users: [a@contoso.example, b@contoso.example, a@contoso.example]\n  trusted_addresses: [198.51.100.7/32, 203.0.113.0/24]\n")
	if a.Fingerprint() != b.Fingerprint() {
		t.Error("the same settings have two fingerprints")
	}
	base := load(t, string(read(t, "example.yaml"))).Fingerprint()
	for old, change := range map[string]string{
		"users: 6": "users: 7", "198.51.100.7": "198.51.100.8", "root@": "other@", "expect: block": "expect: mfa", "non_interactive: true": "non_interactive: false",
		"[KP, \"NO\"]": "[KP]", "emergency@": "e@", "[Payroll]": "[Other]", "000000000001:": "000000000003:", "MFA for adm": "mfa for adm",
	} {
		text := strings.Replace(string(read(t, "example.yaml")), old, change, 1)
		if load(t, text).Fingerprint() == base {
			t.Errorf("%s instead of %s leaves the fingerprint", change, old)
		}
	}
}

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	for _, test := range []struct {
		text string
		want []string // one for each line of the error
	}{
		{"defaults: {}\n", []string{`f:1:1: the file: unknown key "defaults", expected one of default, tenants; correct or remove it`}},
		{"default: [a]\n", []string{"f:1:10: default is a list, expected one of thresholds"}},
		{"- a\n", []string{"f:1:1: the file is a list"}},
		{"default:\n  thresholds:\n    pasword_spray: {users: 5}\n", []string{`f:3:5: default.thresholds: unknown key "pasword_spray", expected one of repeated_failures, password_spray`}},
		{"default:\n  thresholds:\n    password_spray: {user: 5}\n", []string{`f:3:22: default.thresholds.password_spray: unknown key "user", expected one of users, users_high`}},
		{"default:\n  thresholds:\n    password_spray:\n      users: 1\n      window: 5s\n      slow_window: 3d\n      low_users: many\n      users_high: 10.0\n", []string{
			"f:4:14: default.thresholds.password_spray.users is \"1\", expected a whole number from 2 to 256; it means: users failing",
			`f:5:15: default.thresholds.password_spray.window is "5s", expected a duration such as 30m, 24h or 2d from 1m to 48h`,
			`f:6:20: default.thresholds.password_spray.slow_window is "3d", expected a duration`,
			`f:7:18: default.thresholds.password_spray.low_users is "many", expected a whole number`,
			`f:8:19: default.thresholds.password_spray.users_high is "10.0", expected a whole number`,
		}},
		{"default:\n  thresholds:\n    brute_force: {failures: 31}\ntenants:\n  " + tenantOne + ":\n    name: Contoso\n", []string{
			"f:3:5: default.thresholds: threshold brute_force.failures is above brute_force.failures_high, expected the other way round; change one of the two"}},
		{"tenants:\n  " + tenantOne + ":\n    thresholds:\n      mfa_fatigue: {prompts: 6}\n", []string{"f:4:7: tenants." + tenantOne + ".thresholds: threshold mfa_fatigue.prompts is above"}},
		{"tenants:\n  contoso: {name: Contoso}\n", []string{`f:2:3: tenants: "contoso" is no tenant id, expected a GUID such as`}},
		{"tenants:\n  " + tenantOne + ": {name: A}\n  " + strings.ToUpper(tenantOne) + ": {name: B}\n", []string{"f:3:3: tenants: " + strings.ToUpper(tenantOne) + " is named twice"}},
		{"tenants:\n  " + tenantOne + ": {name: A}\n  " + tenantOne + ": {name: B}\n", []string{`f:3:3: tenants: "` + tenantOne + `" is given twice, expected it once`}},
		{"default: {}\ndefault: {}\n", []string{`f:2:1: the file: "default" is given twice`}},
		{"default:\n  name: Contoso\n", []string{`f:2:3: default: unknown key "name"`}},
		{"default:\n  trusted_addresses: [203.0.113.0/33, 203.0.113.5/24, 0.0.0.0/0, home, \"::ffff:203.0.113.0/120\", \"fe80::1%eth0\"]\n", []string{
			`f:2:23: default.trusted_addresses: "203.0.113.0/33" is no address and no network`, `f:2:39: default.trusted_addresses: "203.0.113.5/24" has bits beyond its length, expected a network such as 203.0.113.0/24`,
			`f:2:55: default.trusted_addresses: "0.0.0.0/0" is every address`, `f:2:66: default.trusted_addresses: "home" is no address`,
			`f:2:72: default.trusted_addresses: "::ffff:203.0.113.0/120" is no address`, `f:2:98: default.trusted_addresses: "fe80::1%eth0" is no address`}},
		{"default:\n  trusted_addresses: 203.0.113.0/24\n", []string{`f:2:22: default.trusted_addresses is "203.0.113.0/24", expected a list`}},
		{"default:\n  privileged_users: [ada, privileged, {a: b}]\n", []string{
			`f:2:22: default.privileged_users: "ada" is no user, expected a userPrincipalName or an object id`, `f:2:27: default.privileged_users: "privileged" is no user`,
			"default.privileged_users[2] is a mapping, expected one value on one line"}},
		{"default:\n  expectations:\n    - applications: [Payroll]\n", []string{"has no name, expected name: TEXT", "has no expect, expected expect: mfa or"}},
		{"default:\n  expectations:\n    - {name: A, expect: prayer, app: B}\n", []string{`f:3:25: default.expectations[0].expect is "prayer", expected one of mfa, conditional_access, compliant_device, block`,
			`f:3:33: default.expectations[0]: unknown key "app", expected one of name, expect, users`}},
		{"default:\n  expectations:\n    - {name: A, expect: block, except_users: [a@contoso.example]}\n", []string{"f:3:25: default.expectations[0] expects every sign-in to be blocked"}},
		{"default:\n  expectations:\n    - {name: A, expect: mfa, users: [privileged]}\ntenants:\n  " + tenantOne + ": {name: A}\n", []string{`f:3:38: expectation "A" is about privileged, which is empty here, expected privileged_users beside it`}},
		{"default:\n  expectations:\n    - {name: A, expect: mfa}\ntenants:\n  " + tenantOne + ":\n    expectations:\n      - {name: A, expect: mfa}\n", []string{`f:7:16: tenants.` + tenantOne + `: there is an expectation "A" already`}},
		{"default:\n  expectations:\n    - {name: A, expect: mfa, countries: [Norway, NO], non_interactive: perhaps}\n", []string{
			`f:3:42: default.expectations[0].countries: "Norway" is no country`, `f:3:72: default.expectations[0].non_interactive is "perhaps", expected true or false`}},
		{"default: &a\n  thresholds: *a\n", []string{"is an anchor, alias, tag, directive, merge or complex key, which is not read"}},
		{"default: {}\n---\ndefault: {}\n", []string{"f:3:"}},
		{"default:\n\t- x: [\n", []string{"is no YAML: "}},
		{"a: \"b\n", []string{"is no YAML: "}},
		{strings.Repeat("#", MaxSize+1), []string{"f:1:1: the file has 1048577 bytes, expected at most 1048576"}},
	} {
		s, err := Load("f", []byte(test.text))
		if err == nil {
			t.Errorf("%q is accepted: %+v", test.text, s)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(test.want) {
			t.Errorf("%.200q: %d findings, want %d:\n%v", test.text, len(lines), len(test.want), err)
			continue
		}
		for i, want := range test.want {
			if !strings.Contains(lines[i], want) {
				t.Errorf("%.200q:\n got %s\nwant %s", test.text, lines[i], want)
			}
			if !regexp.MustCompile(`^f:[0-9]+:[0-9]+: .+`).MatchString(lines[i]) {
				t.Errorf("no place: %s", lines[i])
			}
		}
	}
}

// table is the table of thresholds as README.md holds it.
func table() string {
	var b strings.Builder
	b.WriteString("| Detection | Value | Default | From | To | Meaning |\n|---|---|---|---|---|---|\n")
	for _, f := range detectors.ThresholdFields() {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s | %s |\n", f.Detection, f.Name, f.Default, f.Min, f.Max, f.Doc)
	}
	return b.String()
}

func TestReadmeHoldsTheTableAndEveryKey(t *testing.T) {
	const begin, end = "<!-- thresholds: a test holds this table against the code -->\n", "\n<!-- end of thresholds -->"
	text := string(read(t, "README.md"))
	before, rest, ok1 := strings.Cut(text, begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("README.md lacks the marks around the table")
	}
	if *update {
		if err := os.WriteFile("README.md", []byte(before+begin+table()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if d := cmp.Diff(table(), got); d != "" {
		t.Errorf("README.md is not what the code says (go test ./detectors/settings -update writes it): %s", d)
	}
	example := string(read(t, "example.yaml"))
	for _, key := range append([]string{"default", "tenants", "thresholds", "trusted_addresses", "privileged_users", "expectations"}, expectationKeys...) {
		if !strings.Contains(text, "`"+key+"`") {
			t.Errorf("README.md does not explain %s", key)
		}
		if !strings.Contains(example, key+":") {
			t.Errorf("example.yaml does not show %s", key)
		}
	}
	for _, expect := range expects {
		if !strings.Contains(text, "`"+expect+"`") || !strings.Contains(example, "expect: "+expect) {
			t.Errorf("README.md or example.yaml lack %s", expect)
		}
	}
}

func FuzzLoad(f *testing.F) {
	if example, err := os.ReadFile("example.yaml"); err == nil {
		f.Add(example)
	} else {
		f.Fatal(err)
	}
	f.Add([]byte("default:\n  thresholds:\n    brute_force: {failures: 31}\n"))
	f.Add([]byte("tenants:\n  " + tenantOne + ": {name: A}\n"))
	f.Add([]byte("a: &a [*a]\n<<: *a\n? [x]\n: !!int 3\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Load("f", data)
		if (s == nil) == (err == nil) {
			t.Fatal("neither settings nor an error, or both")
		}
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if !regexp.MustCompile(`^f:[0-9]+:[0-9]+: .+`).MatchString(line) {
					t.Fatalf("no place: %q", line)
				}
			}
			return
		}
		if err := s.Validate(); err != nil {
			t.Fatal("accepted, but", err)
		}
		again, err := Load("f", data)
		if err != nil || again.Fingerprint() != s.Fingerprint() {
			t.Fatal("the same bytes give other settings")
		}
	})
}
