package catalogue

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func mustOverlay(t testing.TB, text string) *Catalogue {
	t.Helper()
	c, err := LoadOverlay("contoso.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func names(actions []*Action) (out []string) {
	for _, a := range actions {
		out = append(out, a.Name)
	}
	return out
}

func TestOverlayExample(t *testing.T) {
	data, err := os.ReadFile("overlay.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	base, c := mustLoad(t), mustOverlay(t, string(data))
	changed := c.Code(50126)
	if !strings.Contains(changed.Remediation, "4711") || changed.Meaning != base.Code(50126).Meaning || !changed.PasswordWasWrong() || changed.Counts != CountsYes {
		t.Errorf("code 50126: %+v", changed)
	}
	if base.Code(50057).Counts != CountsYes || c.Code(50057).Counts != "" {
		t.Errorf("code 50057 counts %q, before %q", c.Code(50057).Counts, base.Code(50057).Counts)
	}
	added := c.Code(999001)
	if added == nil || added.Scenario.Name != "error_insight" || added.Link != "https://login.microsoftonline.com/error?code=999001" || added.Symbol != "ContosoGatewayRefused" {
		t.Errorf("code 999001: %+v", added)
	}
	if n := len(c.Codes()); n != len(base.Codes())+1 || !slices.IsSortedFunc(c.Codes(), func(a, b *Code) int { return int(a.Code) - int(b.Code) }) {
		t.Errorf("%d codes, or not in order", n)
	}
	s, before := c.Scenario("wrong_password"), base.Scenario("wrong_password")
	if s.Title != "Wrong password (Contoso)" || s.Definition != before.Definition || s.Rank != before.Rank || s.Links[0].URL != "https://wiki.contoso.example/passwords" {
		t.Errorf("scenario: %+v", s)
	}
	if s.Severity.For("failure") != "medium" || s.Severity.For("resolved") != before.Severity.For("resolved") {
		t.Errorf("severity of a failure %s, of a resolved one %s", s.Severity.For("failure"), s.Severity.For("resolved"))
	}
	if got := s.Summary.For("failure").String(); !strings.HasPrefix(got, "{who} typed a wrong password") || s.Summary.For("resolved").String() != before.Summary.For("resolved").String() {
		t.Errorf("summary %s", got)
	}
	if got := names(s.Actions.For("failure")); !slices.Equal(got, []string{"retype_password", "contoso_runbook"}) {
		t.Errorf("actions %v", got)
	}
	if a, was := c.Action("reset_password"), base.Action("reset_password"); a.Role.Title != "Contoso service desk (4711)" || a.Text.String() != was.Text.String() {
		t.Errorf("action %+v", a)
	}
	if c.Incident("repeated_failures").Severity != "high" || c.Incident("repeated_failures").Title != base.Incident("repeated_failures").Title {
		t.Errorf("incident %+v", c.Incident("repeated_failures"))
	}
	if !strings.Contains(c.Unknown("risk").Text, "Contoso") || c.Sentence(SentenceAttemptSucceeded).String() != "They got in at last." {
		t.Error("unknowns or sentences are not changed")
	}
	controls := c.KeyWords(c.Evidence("unmet_controls"))
	if got := string(controls.AppendList(nil, []string{"Mfa", "Contoso conduct"})); got != "multifactor authentication (MFA) and acceptance of the code of conduct" {
		t.Errorf("controls read %q", got)
	}
	if c.Fingerprint() == base.Fingerprint() || c.Fingerprint() != mustOverlay(t, string(data)).Fingerprint() {
		t.Error("the fingerprint is not that of the embedded files and the overlay")
	}
	if base.Code(999001) != nil || strings.Contains(base.Code(50126).Remediation, "4711") {
		t.Error("the embedded catalogue has changed")
	}
}

// A file without changes is fine, whatever it looks like.
func TestOverlayWithoutChanges(t *testing.T) {
	base := mustLoad(t)
	for _, text := range []string{"", "# nothing yet\n", "---\n", "codes:\n", "codes: {}\nscenarios:\n  # none\n", "\xef\xbb\xbfcodes:\r\n  50126:\r\n", "null"} {
		c := mustOverlay(t, text)
		if len(c.Codes()) != len(base.Codes()) || c.Code(50126).Meaning != base.Code(50126).Meaning {
			t.Errorf("%q changes the catalogue", text)
		}
	}
}

func TestOverlayFingerprint(t *testing.T) {
	seen := map[uint64]string{mustLoad(t).Fingerprint(): "the embedded catalogue"}
	for _, text := range []string{"", "codes: {50126: {meaning: A.}}", "codes: {50126: {meaning: B.}}"} {
		print := mustOverlay(t, text).Fingerprint()
		if other, ok := seen[print]; ok {
			t.Errorf("%q has the fingerprint of %q", text, other)
		}
		seen[print] = text
		if other, err := LoadOverlay("elsewhere.yaml", []byte(text)); err != nil || other.Fingerprint() != print {
			t.Errorf("%q: the name of the file changes the fingerprint (%v)", text, err)
		}
	}
}

// Taking the last use of something of the catalogue away is no mistake.
func TestOverlayMayLeaveThingsUnused(t *testing.T) {
	c := mustOverlay(t, "scenarios: {security_defaults: {links: [], actions: {default: [nothing], interrupted: []}}}\ncodes: {530035: {category: risk}}\n")
	if len(c.Scenario("security_defaults").Links) != 0 || len(c.Scenario("security_defaults").Actions.For("interrupted")) != 0 {
		t.Error("lists are not emptied")
	}
	if c.Code(530035).Scenario.Name != "security_defaults" || c.Code(530035).Category != "risk" {
		t.Errorf("code 530035 has the scenario %s and the category %s", c.Code(530035).Scenario.Name, c.Code(530035).Category)
	}
}

// Every mistake is reported with its line, what was expected, and what to do; all of them at once.
func TestOverlayRefuses(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"section", "code:\n  50126: {meaning: A.}", `contoso.yaml:1: unknown section "code": expected codes, scenarios, incidents, actions, roles, links, words, unknowns or sentences`},
		{"evidence", "\nevidence: {}", `contoso.yaml:2: unknown section "evidence": expected codes, scenarios, incidents, actions, roles, links, words, unknowns or sentences`},
		{"list of sections", "- codes", `contoso.yaml:1: the file holds a list: expected the sections codes, scenarios, incidents, actions, roles, links, words, unknowns or sentences`},
		{"section that is a list", "codes:\n  - 50126", `contoso.yaml:1: codes: is a list: expected entries as NAME: ..., indented below`},
		{"entry that is a text", "codes:\n  50126: Oh dear.", `contoso.yaml:2: code 50126: is a text: expected its fields, such as symbol: ..., indented below`},
		{"role that is a mapping", "roles:\n  user: {title: User}", `contoso.yaml:2: user: is a mapping: expected its title`},
		{"field", "codes:\n  50126:\n    meaning: A.\n    colour: red", `contoso.yaml:4: code 50126: field "colour" cannot be set: expected symbol, category, outcome, password, counts, meaning, remediation or link`},
		{"rank", "scenarios:\n  pta:\n    rank: 1", `contoso.yaml:3: scenario pta: field "rank" cannot be set: expected title, definition, severity, summary, note, actions or links`},
		{"code that is no number", "codes:\n  AADSTS50126:\n    meaning: A.", `contoso.yaml:2: code "AADSTS50126": expected a number such as 50126`},
		{"code with a zero before it", "codes:\n  050126:\n    meaning: A.", `contoso.yaml:2: code "050126": expected a number such as 50126`},
		{"code too large", "codes:\n  5012600000:\n    meaning: A.", `contoso.yaml:2: code "5012600000": expected a number such as 50126`},
		{"added code that lacks fields", "codes:\n  999001:\n    symbol: X", "contoso.yaml:2: code 999001: category is missing\ncontoso.yaml:2: code 999001: meaning is missing\ncontoso.yaml:2: code 999001: remediation is missing"},
		{"added code with nothing", "codes:\n  999001:", "contoso.yaml:2: code 999001: category is missing\ncontoso.yaml:2: code 999001: meaning is missing\ncontoso.yaml:2: code 999001: remediation is missing"},
		{"category", "codes:\n  50126:\n    category: credential", `contoso.yaml:3: code 50126: category credential has no scenario: did you mean credentials?`},
		{"category of a code that a scenario lists", "codes:\n  530035:\n    category: security_default", `contoso.yaml:3: code 530035: category security_default has no scenario: did you mean security_defaults?`},
		{"outcome", "codes:\n  50126:\n    outcome: failed", `contoso.yaml:3: code 50126: outcome "failed": expected failure, benign_step, needs_follow_up or user_must_act`},
		{"password", "codes:\n  50126:\n    password: bad", `contoso.yaml:3: code 50126: password "bad": expected unknown, right, weak or wrong`},
		{"counts", "codes:\n  50126:\n    counts: true", `contoso.yaml:3: code 50126: counts "true": expected no, yes or unattended`},
		{"interrupt that counts", "codes:\n  50126:\n    outcome: benign_step", `contoso.yaml:3: code 50126: an interrupt cannot count as a failure: with an outcome other than failure, counts must be no or unattended`},
		{"emptied meaning", "codes:\n  50126:\n    meaning: \"\"", `contoso.yaml:3: code 50126: meaning is missing`},
		{"meaning without a value", "codes:\n  50126:\n    meaning:", `contoso.yaml:3: code 50126: meaning has no value: write one, or "" for none`},
		{"meaning that is a list", "codes:\n  50126:\n    meaning: [A]", `contoso.yaml:3: code 50126: meaning is a list: expected a text`},
		{"meaning of two lines", "codes:\n  50126:\n    meaning: |\n      A.\n      B.", `contoso.yaml:3: a text holds a line break or another control character: write it on one line, or folded behind >-`},
		{"link of a code", "codes:\n  50126:\n    link: wiki", `contoso.yaml:3: code 50126: link "wiki": expected an https address`},
		{"scenario", "scenarios:\n  ca_blockd:\n    title: X", `contoso.yaml:2: unknown scenario "ca_blockd", and none can be added: did you mean ca_blocked?`},
		{"incident", "incidents:\n  password_sprays: {title: X}", `contoso.yaml:2: unknown incident "password_sprays", and none can be added: did you mean password_spray?`},
		{"sentence", "sentences:\n  why_polcy: X", `contoso.yaml:2: unknown sentence "why_polcy", and none can be added: did you mean why_policy?`},
		{"severity", "scenarios:\n  pta:\n    severity:\n      failure: urgent", `contoso.yaml:4: pta: severity: failure "urgent": expected info, low, medium, high or critical`},
		{"severity without outcome", "scenarios:\n  pta:\n    severity: high", `contoso.yaml:3: pta: severity is a text: expected a mapping by outcome, such as {default: ...}`},
		{"outcome of a severity", "scenarios:\n  pta:\n    severity: {failed: high}", `contoso.yaml:3: pta: severity: outcome "failed": expected success, failure, interrupted, resolved or default`},
		{"template", "scenarios:\n  pta:\n    summary:\n      failure: >-\n        {who} and\n        {hwo}", `contoso.yaml:4: pta: summary failure: template "{who} and {hwo}", character 11: unknown key {hwo}`},
		{"template that is not closed", "sentences:\n  attempt_succeeded: \"It [{user}\"", `contoso.yaml:2: attempt_succeeded: text: template "It [{user}", character 11: group is not closed by ]`},
		{"empty summary", "scenarios:\n  pta:\n    summary: {failure: \"\"}", `contoso.yaml:3: pta: summary: failure is missing`},
		{"label with a summary", "scenarios:\n  flagged:\n    summary: {default: X}", `contoso.yaml:3: flagged: a label has no summary, codes or categories`},
		{"label without a note", "scenarios:\n  flagged:\n    note: \"\"", `contoso.yaml:3: flagged: a label needs a note`},
		{"action", "scenarios:\n  pta:\n    actions:\n      default: [pta_remedy,\n        pta_agent]", `contoso.yaml:5: pta: unknown action "pta_agent": did you mean pta_agents?`},
		{"action like no other", "scenarios:\n  pta:\n    actions:\n      default: [xxxxxxxxxxxxxxxxxxxxxxxx]", `contoso.yaml:4: pta: unknown action "xxxxxxxxxxxxxxxxxxxxxxxx": expected one of the names in schemas/catalogue/actions.yaml`},
		{"actions that are no list", "scenarios:\n  pta:\n    actions: {default: pta_agents}", `contoso.yaml:3: pta: actions is a text: expected a list such as [a, b]`},
		{"link", "incidents:\n  password_spray:\n    links: [password_sprai]", `contoso.yaml:3: password_spray: unknown link "password_sprai": did you mean password_spray?`},
		{"link of some diagnoses", "links:\n  smart_lockout:\n    when: \"{?code=5005x}{?cod}\"", `contoso.yaml:3: smart_lockout: when: template "[{?code=5005x}{?cod}+]", character 15: unknown key {cod}`},
		{"link of some diagnoses in an incident", "incidents:\n  account_lockout:\n    links: [legacy_defaults]", `contoso.yaml:3: account_lockout: link legacy_defaults is for some diagnoses only, which an incident cannot tell`},
		{"link that only some diagnoses keep", "links:\n  app_assignment: {when: \"\"}\n  block_legacy:\n    when: \"{?legacy_client}\"", `contoso.yaml:4: legacy_auth: link block_legacy is for some diagnoses only, which an incident cannot tell`},
		{"vocabulary", "words:\n  control:\n    words: {Mfa: A}", `contoso.yaml:2: unknown vocabulary "control", and none can be added: did you mean controls?`},
		{"keys of a vocabulary", "words:\n  controls:\n    keys: [city]", `contoso.yaml:3: vocabulary controls: field "keys" cannot be set: expected words`},
		{"words that are a text", "words:\n  controls:\n    words: MFA", `contoso.yaml:3: controls: words is a text: expected a mapping such as {Mfa: multifactor authentication}`},
		{"word in other case", "words:\n  controls:\n    words:\n      mfa: another factor", `contoso.yaml:4: controls: Mfa and mfa differ in case only but not in their words`},
		{"word without a value", "words:\n  controls:\n    words:\n      Mfa: \"\"", `contoso.yaml:4: controls: Mfa is missing`},
		{"severity of an incident", "incidents:\n  password_spray:\n    severity: dire", `contoso.yaml:3: password_spray: severity "dire": expected info, low, medium, high or critical`},
		{"incident with a key of a diagnosis", "incidents:\n  password_spray:\n    summary: \"{who}\"", `contoso.yaml:3: password_spray: summary: template "{who}", character 1: unknown key {who}`},
		{"action of an incident with a key", "actions:\n  incident_lift_lock:\n    text: \"Ask {who}.\"", `contoso.yaml:3: action incident_lift_lock holds a key of a diagnosis, which the incident account_lockout has not: write its text without keys`},
		{"the action that stands alone, with a key", "actions:\n  nothing:\n    text: \"{who} has nothing to do.\"", `contoso.yaml:3: action nothing stands where no other one applies: write its text without keys`},
		{"role", "actions:\n  nothing:\n    role: nobdy", `contoso.yaml:3: nothing: unknown role "nobdy": did you mean nobody?`},
		{"added action that nothing uses", "actions:\n  spare:\n    role: user\n    text: Spare.", `contoso.yaml:2: spare: no scenario or incident uses it`},
		{"added role that nothing uses", "roles:\n  spare: Spare", `contoso.yaml:2: spare: no action uses it`},
		{"name", "links:\n  Contoso Wiki: {title: A, url: \"https://wiki.contoso.example\"}", `contoso.yaml:2: name "Contoso Wiki": expected lower case letters, digits and _`},
		{"alias", "codes:\n  50126: &a\n    meaning: A.", "contoso.yaml:2: anchor is not supported: write the value itself, in quotes where it is a text"},
		{"tag", "codes:\n  50126:\n    meaning: !x A.", "contoso.yaml:3: tag is not supported: write the value itself, in quotes where it is a text"},
		{"merge key", "codes:\n  50126:\n    <<: {meaning: A.}", "contoso.yaml:3: key <<: expected a plain name"},
		{"key twice", "codes:\n  50126: {meaning: A.}\n  50126: {meaning: B.}", `contoso.yaml:3: is not YAML that can be read: mapping key "50126" already defined at [2:3]: check indentation, quotes and brackets`},
		{"two documents", "codes: {}\n---\ncodes: {}", "contoso.yaml:3: a second document begins: expected one, without ---"},
		{"another encoding", "codes:\n  50126: {meaning: \"Pa\xdfwort\"}", "contoso.yaml:2: is no text in UTF-8: save the file with this encoding"},
		{"a text that begins a flow", "codes:\n  50126:\n    meaning: [A", `contoso.yaml:3: is not YAML that can be read: sequence end token ']' not found: check indentation, quotes and brackets`},
		{"nesting", "codes:\n  " + strings.Repeat("[", 501), "contoso.yaml:2: more than 500 brackets are open: close them"},
		{"size", strings.Repeat("#", 1<<20+1), "contoso.yaml: holds 1048577 bytes: expected at most 1048576"},
		{"several", "codes:\n  50126: {counts: often}\n\nscenarios:\n  pta: {rank: 3}\n  sso:\n    severity: {default: none}\nlinks:\n  x: {title: X}", "contoso.yaml:2: code 50126: counts \"often\": expected no, yes or unattended\n" +
			"contoso.yaml:5: scenario pta: field \"rank\" cannot be set: expected title, definition, severity, summary, note, actions or links\n" +
			"contoso.yaml:7: sso: severity: default \"none\": expected info, low, medium, high or critical\n" +
			"contoso.yaml:9: x: url is missing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := LoadOverlay("contoso.yaml", []byte(tc.text))
			if err == nil {
				t.Fatal("the broken overlay loads")
			}
			if want := "the catalogue is not valid:\n" + tc.want; err.Error() != want {
				t.Errorf("got\n%v\nwant\n%s", err, want)
			}
		})
	}
}

// smallCatalogue has one entry of each kind, so that a run of the fuzzer is fast.
var smallCatalogue = func() fstest.MapFS {
	out := fstest.MapFS{
		"codes.tsv": {Data: []byte(strings.Join(codeColumns, "\t") + "\n50126\tX\tcredentials\t\twrong\tyes\tA.\tB.\thttps://learn.microsoft.com/x\n")},
		"scenarios.yaml": {Data: []byte("- {name: wrong_password, rank: 1, title: T, definition: D, severity: {default: low}, summary: {default: \"{who} {code}\"}, actions: {default: [retype]}," +
			" links: [help], evidence: [place], categories: [credentials], examples: [E]}\n- {name: flagged, type: label, rank: 2, title: T, definition: D, severity: {default: low}, note: N, actions: {default: []}, examples: [E]}\n")},
		"incidents.yaml": {Data: []byte("- {name: spray, title: T, definition: D, severity: low, summary: \"{entity}\", actions: [retype], links: [help]}\n")},
		"actions.yaml":   {Data: []byte("- {name: retype, text: Retype it., role: user}\n")},
		"roles.yaml":     {Data: []byte("- {name: user, title: The user}\n")},
		"links.yaml":     {Data: []byte("- {name: help, title: Help, url: \"https://learn.microsoft.com/x\"}\n")},
		"evidence.yaml":  {Data: []byte("- {name: place, kind: text, capability: records, title: Place}\n")},
		"words.yaml":     {Data: []byte("- {name: places, keys: [place], words: {here: at home}}\n")},
		"unknowns.yaml":  {Data: []byte("- {name: risk, text: Hidden.}\n")},
	}
	sentences := ""
	for _, name := range sentenceNames {
		sentences += "- {name: " + name + ", text: \"[{place}]\"}\n"
	}
	out["sentences.yaml"] = &fstest.MapFile{Data: []byte(sentences)}
	return out
}()

// FuzzOverlay holds that no overlay makes the loader panic, that errors name a place in it, and that what loads is whole.
func FuzzOverlay(f *testing.F) {
	example, err := os.ReadFile("overlay.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{
		string(example), "", "codes: {50126: {meaning: A.}, 7: {category: credentials, meaning: A., remediation: B.}}", "codes:\n  - &a [*a]\n", "? [a]: b\n",
		"%YAML 1.2\n---\na: |2\n  b", "sentences: {why_policy: >-\n  {who}}", "scenarios: {wrong_password: {severity: {failure: high}, actions: {default: [x]}, note: \"[{place}]\"}, flagged: {note: A}}",
		"words: {places: {words: {here: there, Here: there, x: y}}}\nlinks: {help: {when: \"{?code=1}\"}}", "words: {places: {words: []}}",
		"incidents: {spray: {severity: high}}\nactions: {x: {text: \"{who|a}\", role: y}}\nroles: {y: Y}\nunknowns: {risk: A}\nlinks: {help: {url: \"https://a.example\"}}",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parse(smallCatalogue, &overlayFile{"contoso.yaml", []byte(text)})
		if err != nil {
			for _, line := range strings.Split(err.Error(), "\ncontoso.yaml") {
				if strings.Contains(line, "\n"+folder) {
					t.Errorf("%q is not about the overlay %q", line, text)
				}
			}
			return
		}
		if len(c.Scenarios()) != 2 || len(c.Incidents()) != 1 || c.Code(50126) == nil {
			t.Errorf("%q takes something away, or adds what cannot be added", text)
		}
		for _, code := range c.Codes() {
			if code.Scenario == nil || code.Meaning == "" || code.Link == "" {
				t.Errorf("%q: code %d is not whole", text, code.Code)
			}
		}
		for _, s := range c.Scenarios() {
			if s.Severity.For("failure") == "" || s.Type == TypeScenario && s.Summary.For("failure") == nil {
				t.Errorf("%q: scenario %s is not whole", text, s.Name)
			}
		}
	})
}
