package catalogue

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// Lengths of the texts in bytes. A meaning stands after another sentence in a summary, a remediation in a list of actions.
const (
	minCodeText    = 20
	maxMeaning     = 160
	maxRemediation = 230
)

// referenceCodes are the codes that the catalogue was begun with: Microsoft's code reference, its articles on single codes and
// the codes that its public workbooks and rules count. None of them may get lost.
const referenceCodes = `
	0 16000 16001 16002 16003 17003 20001 20012 20033 28002 28003 29200 40008 40009 40010 40014 40015 50000 50001 50002
	50003 50005 50006 50007 50008 50010 50011 50012 50013 50014 50015 50017 50019 50020 50027 50029 50032 50033 50034
	50042 50043 50048 50049 50050 50053 50055 50056 50057 50058 50059 50061 50064 50068 50070 50071 50072 50074 50076
	50078 50079 50085 50086 50087 50088 50089 50097 50098 50099 50100 50101 50102 50103 50105 50107 50108 50109 50111
	50117 50120 50123 50124 50125 50126 50127 50128 50129 50130 50131 50132 50133 50134 50135 50136 50137 50138 50139
	50140 50141 50142 50143 50144 50146 50147 50148 50149 50150 50155 50156 50157 50158 50159 50160 50161 50162 50163
	50164 50165 50166 50167 50168 50169 50170 50171 50172 50173 50176 50177 50178 50180 50181 50187 50192 50194 50196
	50197 50199 50201 51000 51001 51004 51005 51006 52004 53000 53001 53002 53003 53004 53009 53010 53011 54000 54005
	65001 65002 65004 65005 67003 70000 70001 70002 70003 70004 70005 70007 70008 70011 70012 70016 70018 70019 70037
	70043 70044 70046 75001 75003 75005 75008 75011 75016 76021 76026 80001 80002 80003 80004 80005 80007 80010 80011
	80012 80013 80014 81001 81002 81003 81004 81005 81006 81007 81008 81009 81010 81011 81012 81013 81014 81016 90002
	90004 90005 90006 90007 90008 90009 90010 90012 90013 90014 90015 90016 90019 90020 90022 90023 90024 90025 90027
	90033 90036 90038 90043 90051 90055 90056 90072 90081 90082 90084 90085 90086 90087 90090 90091 90092 90093 90094
	90095 90099 90100 90101 90102 90107 90112 90114 90117 90119 90120 90121 90123 90124 90125 90126 90130 100007 120000
	120002 120003 120004 120005 120008 120011 120012 120013 120014 120015 120016 120018 120020 120021 130004 130005 130006
	130007 130008 135010 135011 140000 140001 160011 160021 165004 165100 165900 220450 220501 221000 230109 240001 240002
	300030 399284 500011 500014 500021 500022 500121 500133 500141 500207 500208 500212 500213 500571 500581 500881 501241
	501314 501461 501481 501491 501621 530001 530002 530003 530004 530021 530032 530033 530034 530035 650052 650054 650056
	650057 650059 700003 700005 700011 700016 700020 700022 700023 700025 700027 700030 700054 700082 700084 700229 750054
	900144 900236 900382 900384 900432 900439 900561 900971 901002 901011 901012 901014 1000000 1000002 1000031 1000104
	5000224 5000819 5001256 7000110 7000112 7000114 7000215 7000218 7000222 7500514 7500529 9001023 9002313 9002325
	9002332 9002341`

// sameMeaning are groups of codes that Microsoft itself does not tell apart.
var sameMeaning = [][]int32{{81002, 81003, 81008}, {900382, 900432}}

// ticketsElsewhere are codes outside the category service where Microsoft's documents leave nothing but a support ticket at the end.
var ticketsElsewhere = []int32{80005, 80014}

func TestReferenceCodesAreThere(t *testing.T) {
	c := mustLoad(t)
	fields := strings.Fields(referenceCodes)
	if len(fields) != 384 {
		t.Errorf("%d codes in the list, want 384", len(fields))
	}
	for _, field := range fields {
		code, err := strconv.ParseInt(field, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		if c.Code(int32(code)) == nil {
			t.Errorf("code %d is missing", code)
		}
	}
}

// sentences says what keeps a text from being plain sentences of a length within the bounds, or "".
func sentences(text string, most int) string {
	switch {
	case len(text) < minCodeText || len(text) > most:
		return fmt.Sprintf("%d bytes, want %d to %d", len(text), minCodeText, most)
	case !unicode.IsUpper([]rune(text)[0]):
		return "does not begin with a capital"
	case !strings.HasSuffix(text, ".") || strings.HasSuffix(text, ".."):
		return "does not end with one full stop"
	case strings.TrimSpace(text) != text || strings.Contains(text, "  "):
		return "has blanks too many"
	case strings.ContainsAny(text, "{}[]\"\t"):
		return "has a character of templates or quotes"
	}
	return ""
}

func TestSentences(t *testing.T) {
	for text, good := range map[string]bool{
		"The account is disabled.":                               true,
		"the account is disabled.":                               false,
		"The account is disabled":                                false,
		"The account is  disabled.":                              false,
		"The account is disabled. ":                              false,
		"The account {who} is blocked.":                          false,
		"Disabled.":                                              false,
		"The account" + strings.Repeat(" is disabled", 20) + ".": false,
	} {
		if got := sentences(text, maxMeaning); (got == "") != good {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// Notes such as "User picks another tile" are no sentences although they begin and end like one.
var telegram = regexp.MustCompile(`^(User|App|Client|Device|Token|Tenant|Account|Password|Request|Session) [a-z]`)

func TestCodeTexts(t *testing.T) {
	c := mustLoad(t)
	for _, code := range c.Codes() {
		if wrong := sentences(code.Meaning, maxMeaning); wrong != "" {
			t.Errorf("code %d: meaning %s: %q", code.Code, wrong, code.Meaning)
		}
		if wrong := sentences(code.Remediation, maxRemediation); wrong != "" {
			t.Errorf("code %d: remediation %s: %q", code.Code, wrong, code.Remediation)
		}
		if strings.Contains(code.Meaning, ". ") {
			t.Errorf("code %d: meaning is more than one sentence: %q", code.Code, code.Meaning)
		}
		if telegram.MatchString(code.Meaning) || telegram.MatchString(code.Remediation) {
			t.Errorf("code %d: a noun lacks its article: %q, %q", code.Code, code.Meaning, code.Remediation)
		}
		if strings.EqualFold(code.Meaning, code.Remediation) {
			t.Errorf("code %d: meaning and remediation are the same: %q", code.Code, code.Meaning)
		}
	}
}

func TestMeaningsTellCodesApart(t *testing.T) {
	c := mustLoad(t)
	byMeaning := map[string][]int32{}
	for _, code := range c.Codes() {
		key := strings.ToLower(code.Meaning)
		byMeaning[key] = append(byMeaning[key], code.Code)
	}
	for _, meaning := range slices.Sorted(maps.Keys(byMeaning)) {
		codes := byMeaning[meaning]
		if len(codes) > 1 && !slices.ContainsFunc(sameMeaning, func(group []int32) bool { return slices.Equal(group, codes) }) {
			t.Errorf("codes %v have one meaning: %q", codes, meaning)
		}
	}
	for _, group := range sameMeaning {
		for _, code := range group[1:] {
			if c.Code(code).Meaning != c.Code(group[0]).Meaning {
				t.Errorf("codes %d and %d are the same, yet their meanings differ", group[0], code)
			}
		}
	}
}

// An interrupt is no failure: its remediation says so first. One that needs a follow-up says what to do when none comes.
func TestInterruptsSayWhenNothingIsToDo(t *testing.T) {
	const nothing, success = "Nothing needs to be done", "Nothing needs to be done when a success follows"
	for _, code := range mustLoad(t).Codes() {
		switch code.Outcome {
		case OutcomeBenignStep:
			if !strings.HasPrefix(code.Remediation, nothing) {
				t.Errorf("code %d is a benign step: %q", code.Code, code.Remediation)
			}
		case OutcomeNeedsFollowUp:
			if rest, ok := strings.CutPrefix(code.Remediation, success); !ok || !strings.Contains(rest, ". ") {
				t.Errorf("code %d needs a follow-up: %q", code.Code, code.Remediation)
			}
		case OutcomeUserMustAct:
			if strings.HasPrefix(code.Remediation, nothing) {
				t.Errorf("code %d asks the user to act: %q", code.Code, code.Remediation)
			}
		}
	}
}

// A support ticket is the last resort, and useless without what Microsoft asks for.
func TestSupportTickets(t *testing.T) {
	found := 0
	for _, code := range mustLoad(t).Codes() {
		if !strings.Contains(code.Remediation, "ticket and quote") && !strings.Contains(code.Remediation, "support ticket") {
			continue
		}
		found++
		if code.Category != "service" && !slices.Contains(ticketsElsewhere, code.Code) {
			t.Errorf("code %d of category %s asks for a support ticket: %q", code.Code, code.Category, code.Remediation)
		}
		for _, want := range []string{"correlation id", "request id", "time"} {
			if !strings.Contains(code.Remediation, want) {
				t.Errorf("code %d: the ticket lacks the %s: %q", code.Code, want, code.Remediation)
			}
		}
		if strings.HasPrefix(code.Remediation, "Open a support ticket") {
			t.Errorf("code %d: the ticket is the first thing to do: %q", code.Code, code.Remediation)
		}
	}
	if found == 0 {
		t.Error("no code asks for a support ticket: the test looks for the wrong words")
	}
}

// Links go to Microsoft's documents in English, or to its page for the very code.
func TestCodeLinks(t *testing.T) {
	own := regexp.MustCompile(`aadsts(\d+)`)
	// An article on one code serves these others too, which mean nearly the same.
	relatives := map[int32]string{50001: "500011", 65005: "650056", 70004: "50011", 700011: "70001", 700016: "70001"}
	for _, code := range mustLoad(t).Codes() {
		u, err := url.Parse(code.Link)
		if err != nil {
			t.Errorf("code %d: %v", code.Code, err)
			continue
		}
		switch {
		case u.Scheme != "https":
			t.Errorf("code %d: %s is not https", code.Code, code.Link)
		case u.Host == "login.microsoftonline.com":
			if want := fmt.Sprintf("https://login.microsoftonline.com/error?code=%d", code.Code); code.Link != want {
				t.Errorf("code %d: link %s, want %s", code.Code, code.Link, want)
			}
		case u.Host != "learn.microsoft.com":
			t.Errorf("code %d: %s is at a host that is not allowed", code.Code, code.Link)
		case !strings.HasPrefix(u.Path, "/en-us/") || u.Path != strings.ToLower(u.Path) || strings.HasSuffix(u.Path, ".md") || u.RawQuery != "":
			t.Errorf("code %d: %s is not the plain address of a page in English", code.Code, code.Link)
		}
		if m := own.FindStringSubmatch(u.Path); m != nil && m[1] != strconv.Itoa(int(code.Code)) && m[1] != relatives[code.Code] {
			t.Errorf("code %d: the article is about %s: %s", code.Code, m[1], code.Link)
		}
	}
}

// What counts in the window of a person's failures: refusals and failed proofs of a person, never the faults of a service, an
// application or its settings, the end of a token's life, a missing consent or a step on the way.
func TestCounts(t *testing.T) {
	never := strings.Fields(`enterprise_app_sp enterprise_app_config service token_session consent federation interrupt other device seamless_sso`)
	always := strings.Fields(`credentials lockout conditional_access risk security_defaults mfa mfa_proofup b2b`)
	// Faults of a provider or of its settings within the families that count otherwise.
	faults := []int32{50086, 50087, 50159, 50161, 50166, 50170, 50172, 50176, 220501, 500141}
	for _, code := range mustLoad(t).Codes() {
		want := ""
		switch {
		case slices.Contains(always, code.Category) && code.Outcome == OutcomeUserMustAct:
			want = CountsUnattended
		case slices.Contains(always, code.Category) && !code.IsInterrupt() && !slices.Contains(faults, code.Code):
			want = CountsYes
		case slices.Contains(always, code.Category), slices.Contains(never, code.Category):
		default: // user_state and pta are decided code by code
			continue
		}
		if code.Counts != want {
			t.Errorf("code %d of category %s counts %q, want %q", code.Code, code.Category, code.Counts, want)
		}
	}
	for code, want := range map[int32]string{
		50057: CountsYes, 500341: CountsYes, 54000: CountsYes, 120014: CountsYes, 80004: CountsYes, 80012: CountsYes,
		50055: CountsUnattended, 50144: CountsUnattended, 50137: CountsUnattended,
		50015: "", 80001: "", 80002: "", 80005: "", 80007: "", 80014: "", 120002: "",
	} {
		if got := mustLoad(t).Code(code).Counts; got != want {
			t.Errorf("code %d counts %q, want %q", code, got, want)
		}
	}
}
