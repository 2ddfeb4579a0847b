package lookup

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"
	"golang.org/x/net/html"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Tokens of the tests; each sees what its name says.
const (
	tokenRecords = "token-of-a-reports-reader"
	tokenPolicy  = "token-of-a-security-reader"
	tokenRaw     = "token-with-raw-and-records-only"
	tokenNothing = "token-that-opens-nothing"
)

func (f *fixture) newServer(t testing.TB, change func(*Config)) *Server {
	t.Helper()
	tokens, err := ParseTokens(tokenRecords + "=records, " + tokenPolicy + "=records+conditional_access," + tokenRaw + "=records+raw," + tokenNothing + "=raw")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	config := Config{
		Viewer:     StaticViewer{Anonymous: catalogue.AllCapabilities, Tokens: tokens},
		Metrics:    promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		Registerer: registry,
		Log:        slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	if change != nil {
		change(&config)
	}
	s, err := NewServer(config, f.store, f.renderer, f.catalogue)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// get asks a handler and returns status and body.
func get(t testing.TB, h http.Handler, target, token string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

func TestAPI(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	h := f.newServer(t, nil).Handler()
	api := loadOpenAPI(t)
	for _, test := range []struct {
		target string
		status int
		want   string // within the body
	}{
		{"/v1/diagnoses/" + correlation(3), 200, `"scenario":"ca_blocked"`},
		{"/v1/diagnoses/" + request(5), 200, `"matched":"request_id"`},
		{"/v1/diagnoses/" + url.PathEscape("{"+strings.ToUpper(correlation(3))+"}"), 200, `"id":"` + correlation(3) + `"`},
		{"/v1/diagnoses/" + request(4) + "?raw=true", 200, `"record":{"id":"` + request(4) + `"`},
		{"/v1/diagnoses/" + request(4) + "?raw=true", 200, `"record":"not JSON`},
		{"/v1/diagnoses/" + request(5) + "?raw=true", 200, `"records_total":3`},
		{"/v1/diagnoses/" + request(99), 404, `"error":"No sign-in with this id is known. The newest record was received`},
		{"/v1/diagnoses/" + request(99), 404, `"freshness":{"newest_received":"2026-03-02T09:03:13Z"`},
		{"/v1/diagnoses/%20", 400, "expected a correlationId or requestId"},
		{"/v1/diagnoses/" + strings.Repeat("a", 300), 400, "the id has 300 characters"},
		{"/v1/diagnoses/" + request(4) + "?raw=maybe", 400, "raw: expected true or false"},
		{"/v1/diagnoses?limit=2", 200, `"next_cursor":"ey`},
		{"/v1/diagnoses?user=bob@contoso.example&flagged=true", 200, request(4)},
		{"/v1/diagnoses?ip=2001:0db8:0:0:0:0:0:1&around=2026-03-02T09:00:00%2B00:00", 200, request(4)},
		{"/v1/diagnoses?code=AADSTS53003", 200, request(4)},
		{"/v1/diagnoses?user=nobody@x", 200, `"records":[],"next_cursor":""`},
		{"/v1/diagnoses?limit=0", 400, "limit: expected 1 to 500"},
		{"/v1/diagnoses?limit=x", 400, "limit: expected 1 to 500"},
		{"/v1/diagnoses?ip=999.1.1.1", 400, "ip: expected an IP address"},
		{"/v1/diagnoses?around=yesterday", 400, "around: expected a time such as"},
		{"/v1/diagnoses?around=1960-01-01", 400, "between 1970 and 2099"},
		{"/v1/diagnoses?flagged=perhaps", 400, "flagged: expected true or false"},
		{"/v1/diagnoses?usr=bob", 400, "usr: unknown parameter: expected user, app"},
		{"/v1/diagnoses?user=a&user=b", 400, "user: given more than once"},
		{"/v1/diagnoses?user=%ff", 400, "user: expected a text in UTF-8"},
		{"/v1/diagnoses?user=%00", 400, "user: expected a text in UTF-8"},
		{"/v1/diagnoses?user=%zz", 400, "expected name=value pairs"},
		{"/v1/diagnoses?cursor=x", 400, "cursor: expected the next_cursor"},
		{"/v1/diagnoses?outcome=bad", 400, "outcome: expected success, failure"},
		{"/v1/diagnoses?code=x", 400, "code: expected an error code"},
		{"/v1/incidents", 200, `"incident_id":"incident-carol"`},
		{"/v1/incidents?kind=ca_surge&severity=high&user=bob@contoso.example&around=2026-03-02&limit=1", 200, `"incident_id":"incident-surge"`},
		{"/v1/incidents?kind=no_such", 400, "kind:"},
		{"/v1/incidents?severity=bad", 400, "severity: expected info, low"},
		{"/v1/incidents/incident-carol", 200, `"records_total":3`},
		{"/v1/incidents/no-such", 404, `no incident with the id \"no-such\" is known`},
		{"/v1/codes", 200, `"code":50126`},
		{"/v1/codes/50126", 200, `"scenario":"wrong_password"`},
		{"/v1/codes/aadsts50126", 200, `"code":50126`},
		{"/v1/codes/1", 404, "does not hold the code 1"},
		{"/v1/codes/-1", 400, "code: expected an error code"},
		{"/v1/freshness", 200, `"categories":[{"category":"SignInLogs","records":12}`},
		{"/v1/no-such", 404, "/v1/openapi.yaml describes the API"},
	} {
		response, body := get(t, h, test.target, "")
		if response.StatusCode != test.status || !strings.Contains(body, test.want) {
			t.Errorf("GET %s: status %d, want %d with %q:\n%s", test.target, response.StatusCode, test.status, test.want, body)
			continue
		}
		if got := response.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
			t.Errorf("GET %s: Content-Type %q", test.target, got)
		}
		if test.target != "/v1/no-such" {
			api.check(t, test.target, response.StatusCode, body)
		}
	}
}

func TestAPIPages(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	h := f.newServer(t, nil).Handler()
	cursor, seen := "", 0
	for page := 0; page < 20; page++ {
		_, body := get(t, h, "/v1/diagnoses?limit=5&cursor="+cursor, "")
		var answer SearchAnswer
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		seen += len(answer.Records)
		if cursor = answer.NextCursor; cursor == "" {
			break
		}
	}
	if seen != 13 {
		t.Errorf("%d records on all pages, want 13", seen)
	}
}

// TestNothingLeaks reads every page and every resource as viewers who lack a right, and looks for the names that need it.
func TestNothingLeaks(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	h := f.newServer(t, nil).Handler()
	targets := []string{
		"/v1/diagnoses/" + correlation(3), "/v1/diagnoses/" + request(4), "/v1/diagnoses/" + request(4) + "?raw=true", "/v1/diagnoses", "/v1/diagnoses?scenario=ca_blocked",
		"/v1/incidents", "/v1/incidents/incident-surge", "/v1/incidents/incident-carol", "/v1/freshness",
		"/", "/partials/recent", "/search?problems=true", "/search?user=bob", "/diagnoses/" + correlation(3), "/diagnoses/" + request(4) + "?raw=true",
		"/incidents", "/incidents/incident-surge", "/metrics", "/readyz",
	}
	policy, risk := []string{policyName, policyID, surgeIncited}, []string{riskDetail}
	for _, viewer := range []struct {
		name, token string
		hidden      []string
		says        string // in the result, what is missing
	}{
		{"records", tokenRecords, slices.Concat(policy, risk), "Conditional Access details are left out"},
		{"records and raw", tokenRaw, slices.Concat(policy, risk), "Conditional Access details are left out"},
		{"records and policies", tokenPolicy, risk, ""},
		{"nothing", tokenNothing, slices.Concat(policy, risk, []string{"bob@contoso.example", request(4)}), ""},
		{"a wrong token", "no-such-token-at-all", slices.Concat(policy, risk, []string{"bob@contoso.example", request(4)}), ""},
	} {
		for _, target := range targets {
			_, body := get(t, h, target, viewer.token)
			for _, name := range viewer.hidden {
				if strings.Contains(target, name) { // the page repeats what was asked for
					continue
				}
				if strings.Contains(body, name) || strings.Contains(body, html.EscapeString(name)) {
					t.Errorf("%s: GET %s holds %q", viewer.name, target, name)
				}
			}
		}
		if _, body := get(t, h, "/diagnoses/"+request(4), viewer.token); !strings.Contains(body, viewer.says) {
			t.Errorf("%s: the page does not say %q", viewer.name, viewer.says)
		}
	}
	// The names are there to be found by who may see them, or this test could not fail.
	for _, name := range slices.Concat(policy, risk) {
		if !slices.ContainsFunc(targets, func(target string) bool {
			_, body := get(t, h, target, "")
			return strings.Contains(body, name)
		}) {
			t.Errorf("%q is nowhere even for a viewer with all rights", name)
		}
	}
	if _, body := get(t, h, "/diagnoses/"+request(4), tokenPolicy); !strings.Contains(body, policyName) {
		t.Error("a viewer who may see policies does not")
	}

	// The same for the text of the command line.
	result, err := f.store.Find(t.Context(), request(4))
	if err != nil {
		t.Fatal(err)
	}
	search, err := f.store.Search(t.Context(), SearchQuery{})
	if err != nil {
		t.Fatal(err)
	}
	incidents, err := f.store.Incidents(t.Context(), IncidentFilter{})
	if err != nil {
		t.Fatal(err)
	}
	detail, err := f.store.Incident(t.Context(), "incident-surge")
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, err := range []error{
		WriteResult(&text, result, f.renderer, catalogue.CapabilityRecords), WriteSearch(&text, search, f.renderer, catalogue.CapabilityRecords),
		WriteIncidents(&text, incidents, f.renderer, catalogue.CapabilityRecords), WriteIncident(&text, detail, f.renderer, catalogue.CapabilityRecords),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range slices.Concat(policy, risk) {
		if strings.Contains(text.String(), name) {
			t.Errorf("the text holds %q", name)
		}
	}
}

func TestAccess(t *testing.T) {
	f := newFixture(t)
	h := f.newServer(t, func(c *Config) {
		v := c.Viewer.(StaticViewer)
		v.Anonymous = 0
		c.Viewer = v
	}).Handler()
	for _, test := range []struct {
		target, authorization string
		status                int
	}{
		{"/v1/freshness", "", 401},
		{"/v1/freshness", "Bearer " + tokenRecords, 200},
		{"/v1/freshness", "bearer " + tokenRecords, 200},
		{"/v1/freshness", "Bearer " + tokenNothing, 403},
		{"/v1/freshness", "Bearer wrong", 401},
		{"/v1/freshness", "Bearer ", 401},
		{"/v1/freshness", "Basic " + tokenRecords, 401},
		{"/v1/diagnoses/" + request(1) + "?raw=true", "Bearer " + tokenRaw, 403},
		{"/diagnoses/" + request(1) + "?raw=true", "Bearer " + tokenRaw, 403},
		{"/", "", 401},
		{"/", "Bearer " + tokenRecords, 200},
		{"/v1/codes/50126", "", 200},
		{"/v1/openapi.yaml", "", 200},
		{"/codes", "", 200},
		{"/static/page.css", "", 200},
		{"/static/no-such", "", 404},
		{"/healthz", "", 200},
		{"/readyz", "", 200},
		{"/metrics", "", 200},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, test.target, nil)
		if test.authorization != "" {
			r.Header.Set("Authorization", test.authorization)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != test.status {
			t.Errorf("GET %s with %q: status %d, want %d: %s", test.target, test.authorization, w.Code, test.status, w.Body)
		}
		if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("GET %s with %q: status %d, WWW-Authenticate %q", test.target, test.authorization, w.Code, w.Header().Get("WWW-Authenticate"))
		}
	}
}

func TestParseTokens(t *testing.T) {
	for _, test := range []struct{ list, want string }{
		{"", ""},
		{"0123456789abcdef=records", ""},
		{"base64token0123456==records+raw", ""},
		{"short=records", "token 1 of the list: expected at least 16 characters"},
		{"0123456789abcdef=records,SECRETsecretSECRET", "token 2 of the list: expected TOKEN=capability"},
		{"0123456789abcdef=SECRETsecretSECRET", "token 1 of the list: expected capabilities"},
		{"0123456789 abcdef=records", "token 1 of the list: expected no white space"},
	} {
		_, err := ParseTokens(test.list)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%q: got %v, want %q", test.list, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: the error tells the secret: %v", test.list, err)
		}
	}
	viewer := StaticViewer{}
	viewer.Tokens, _ = ParseTokens("base64token0123456==records+raw")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer base64token0123456=")
	if c, err := viewer.Capabilities(r); err != nil || c != catalogue.CapabilityRecords|catalogue.CapabilityRaw {
		t.Errorf("capabilities %d, %v", c, err)
	}
	if _, err := ParseCapabilities([]string{"records", "everything"}); err == nil || !strings.Contains(err.Error(), `"everything"`) {
		t.Errorf("an unknown capability: %v", err)
	}
}

func TestHeadersAndMethods(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	h := f.newServer(t, nil).Handler()
	for _, target := range []string{"/", "/v1/freshness", "/static/page.js", "/healthz", "/no-such-page", "/diagnoses/" + request(4)} {
		response, _ := get(t, h, target, "")
		csp := response.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || response.Header.Get("X-Content-Type-Options") != "nosniff" ||
			response.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("GET %s: headers %v", target, response.Header)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		r := httptest.NewRequestWithContext(t.Context(), method, "/v1/diagnoses", strings.NewReader("x"))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: status %d", method, w.Code)
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodHead, "/", nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("HEAD: status %d", w.Code)
	}

	r = httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/codes", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Header().Get("Content-Encoding") != "gzip" {
		t.Fatalf("headers %v: not compressed", w.Header())
	}
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(z); err != nil || !strings.Contains(string(text), "50126") {
		t.Errorf("compressed page: %v", err)
	}

	// A file whose address names its content may be kept, and one without is asked for again.
	_, home := get(t, h, "/", "")
	at := strings.Index(home, "/static/page.css?v=")
	address := home[at : at+strings.IndexByte(home[at:], '"')]
	if response, _ := get(t, h, address, ""); !strings.Contains(response.Header.Get("Cache-Control"), "immutable") || response.StatusCode != 200 {
		t.Errorf("GET %s: %d, %v", address, response.StatusCode, response.Header)
	}
	if response, _ := get(t, h, "/static/page.css?v=old", ""); strings.Contains(response.Header.Get("Cache-Control"), "immutable") {
		t.Error("an old address may be kept for ever")
	}
	if response, body := get(t, h, "/v1/openapi.yaml", ""); response.StatusCode != 200 || body != string(schemas.OpenAPI) {
		t.Errorf("openapi.yaml: status %d, %d bytes", response.StatusCode, len(body))
	}
	if _, body := get(t, h, "/metrics", ""); !strings.Contains(body, `signindiag_http_request_duration_seconds_count{route="GET /{$}",status="200"}`) {
		t.Errorf("metrics do not hold the request:\n%.2000s", body)
	}
}

func TestReady(t *testing.T) {
	f := newFixture(t)
	var reasons []string
	h := f.newServer(t, func(c *Config) { c.Ready = func(context.Context) []string { return reasons } }).Handler()
	if response, body := get(t, h, "/readyz", ""); response.StatusCode != 200 || body != "ready\n" {
		t.Errorf("status %d: %s", response.StatusCode, body)
	}
	reasons = []string{"shard 3 replays its log", "the sink waits: code 252"}
	if response, body := get(t, h, "/readyz", ""); response.StatusCode != 503 || body != "shard 3 replays its log\nthe sink waits: code 252\n" {
		t.Errorf("status %d: %s", response.StatusCode, body)
	}
	reasons = nil
	f.conn.Close()
	if response, body := get(t, h, "/readyz", ""); response.StatusCode != 503 || !strings.Contains(body, "ClickHouse does not answer") {
		t.Errorf("status %d: %s", response.StatusCode, body)
	}
	response, body := get(t, h, "/v1/freshness", "")
	if response.StatusCode != 503 || !strings.Contains(body, "ClickHouse cannot answer now") || strings.Contains(body, f.server.Address[0]) {
		t.Errorf("status %d: %s", response.StatusCode, body)
	}
	if response, body := get(t, h, "/", ""); response.StatusCode != 503 || !strings.Contains(body, "<h1") {
		t.Errorf("status %d: %s", response.StatusCode, body)
	}
}

func TestServe(t *testing.T) {
	f := newFixture(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s := f.newServer(t, func(c *Config) { c.Hosts = []string{"signindiag.example"} })
	if err := s.Serve(); err == nil || !strings.Contains(err.Error(), "Listen has not been called") {
		t.Errorf("Serve before Listen: %v", err)
	}
	address, err := s.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	_, port, err := net.SplitHostPort(address.String())
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{
		address.String(): 200, "localhost:" + port: 200, "[::1]:" + port: 200, "signindiag.example": 200, "SIGNINDIAG.example.:" + port: 200,
		"evil.example:" + port: 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421, "203.0.113.7": 421,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address.String()+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("host %s: status %d, want %d", host, response.StatusCode, want)
		}
	}
	second := f.newServer(t, nil)
	if _, err := second.Listen(t.Context(), address.String()); err == nil || !strings.Contains(err.Error(), "SIGNINDIAG_HTTP_ADDRESS") {
		t.Errorf("a port in use: %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	unserved := f.newServer(t, nil)
	if _, err := unserved.Listen(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := unserved.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPanicIsOneRequestOnly(t *testing.T) {
	s := &Server{log: slog.New(slog.DiscardHandler)}
	h := s.recoverPanic(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("SECRET") }))
	response, body := get(t, h, "/", "")
	if response.StatusCode != 500 || strings.Contains(body, "SECRET") {
		t.Errorf("status %d: %s", response.StatusCode, body)
	}
}

// TestPages compares what pages mean, not their bytes, with golden files.
func TestPages(t *testing.T) {
	f := newFixture(t)
	h := f.newServer(t, func(c *Config) { c.Demo = true }).Handler()
	texts := map[string]string{}
	check := func(name, target, token string, status int) {
		t.Run(name, func(t *testing.T) {
			response, body := get(t, h, target, token)
			if response.StatusCode != status {
				t.Fatalf("status %d, want %d:\n%s", response.StatusCode, status, body)
			}
			root, err := html.Parse(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			checkAccessible(t, root)
			golden(t, name, outline(root, texts))
		})
	}
	check("home_empty", "/", "", 200)
	f.story(t)
	f.catalogueTexts(t, texts)
	check("home", "/", "", 200)
	check("recent", "/partials/recent", "", 200)
	check("result_correlation", "/diagnoses/"+correlation(3), "", 200)
	check("result_request", "/diagnoses/"+request(2), "", 200)
	check("result_without_rights", "/diagnoses/"+correlation(3), tokenRecords, 200)
	check("result_raw", "/diagnoses/"+request(4)+"?raw=true", "", 200)
	check("not_found", "/diagnoses/"+request(99), "", 404)
	check("search_form", "/search", "", 200)
	check("search", "/search?user=bob&app=&ip=&around=2026-03-02+09:00&outcome=failure&flagged=true", "", 200)
	check("search_wrong", "/search?around=yesterday", "", 400)
	check("incidents", "/incidents?limit=1", "", 200)
	check("incident", "/incidents/incident-carol", "", 200)
	check("code", "/codes/50126", "", 200)
	check("no_page", "/no-such-page", "", 404)
	check("not_allowed", "/", "no-such-token", 401)

	// The search box leads an id to its page, and a name to a search.
	response, _ := get(t, h, "/search?q="+url.QueryEscape(" {"+strings.ToUpper(correlation(3))+"}"), "")
	if response.StatusCode != http.StatusSeeOther || response.Header.Get("Location") != "/diagnoses/"+correlation(3) {
		t.Errorf("status %d to %q", response.StatusCode, response.Header.Get("Location"))
	}
	if response, body := get(t, h, "/search?q=bob", ""); response.StatusCode != 200 || !strings.Contains(body, request(4)) {
		t.Errorf("search for bob: status %d", response.StatusCode)
	}
	if _, body := get(t, h, "/partials/recent", ""); strings.Contains(body, "<html") || !strings.Contains(body, request(4)) {
		t.Error("the part of the first page is not a part with the newest records")
	}
	if _, body := get(t, h, "/codes?q=password", ""); !strings.Contains(body, ">50126<") || strings.Contains(body, ">65001<") {
		t.Error("the search for codes about passwords is wrong")
	}
}

// TestResultIsComplete wants everything that the renderer says of a record on its page.
func TestResultIsComplete(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	h := f.newServer(t, nil).Handler()
	for n := 1; n <= 13; n++ {
		result, err := f.store.Find(t.Context(), request(n))
		if err != nil {
			t.Fatal(err)
		}
		_, body := get(t, h, "/diagnoses/"+request(n), "")
		report := f.renderer.Report(result.Diagnosis(), catalogue.AllCapabilities)
		want := append([]string{report.Summary, f.renderer.Title(report.Scenario), report.CorrelationID, report.TenantID}, f.renderer.UnknownTexts(result.Diagnosis())...)
		want = append(want, f.renderer.Why(result.Diagnosis(), catalogue.AllCapabilities)...)
		for _, a := range report.Actions {
			want = append(want, a.Text, a.Role)
		}
		for _, l := range report.Links {
			want = append(want, l.Title, l.URL)
		}
		for _, text := range want {
			if !strings.Contains(html.UnescapeString(body), text) {
				t.Errorf("request %d: %q is not on the page", n, text)
			}
		}
	}
}

// TestPagesEscape puts markup where names stand.
func TestPagesEscape(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	const markup = `"><script>alert(1)</script><img src=x onerror=alert(1)>`
	if err := f.conn.Exec(t.Context(), `INSERT INTO diagnoses (request_id, correlation_id, tenant_id, event_time, user, app, address, scenario, severity, outcome, attempt_outcome, evidence, revision)
		SELECT {m:String}, '', {m:String}, event_time, {m:String}, {m:String}, {m:String}, {m:String}, {m:String}, 'failure', 'failed', '{}', 1 FROM diagnoses LIMIT 1`, named("m", markup)); err != nil {
		t.Fatal(err)
	}
	h := f.newServer(t, nil).Handler()
	for _, target := range []string{"/", "/search?problems=true", "/search?user=" + url.QueryEscape(markup), "/diagnoses/" + url.PathEscape(markup), "/codes?q=" + url.QueryEscape(markup), "/codes/" + url.PathEscape(markup), "/incidents/" + url.PathEscape(markup)} {
		_, body := get(t, h, target, "")
		root, err := html.Parse(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for n := range root.Descendants() {
			if n.Data == "script" && attribute(n, "src") == "" || n.Type == html.ElementNode && attribute(n, "onerror") != "" {
				t.Errorf("GET %s: markup became an element", target)
			}
		}
		if target == "/" && !strings.Contains(body, url.PathEscape(markup)) {
			t.Errorf("GET /: the record is not there, so nothing was tested")
		}
	}
}

// catalogueTexts adds what the catalogue and the renderer say of the story to texts, each under a name: the golden files
// are about pages, and stay as they are when a sentence is worded better.
func (f *fixture) catalogueTexts(t *testing.T, texts map[string]string) {
	t.Helper()
	for _, s := range f.catalogue.Scenarios() {
		texts[s.Title] = "{title of " + s.Name + "}"
	}
	for _, k := range f.catalogue.EvidenceKeys() {
		texts[k.Title] = "{title of " + k.Name + "}"
	}
	for _, i := range f.catalogue.Incidents() {
		texts[i.Title] = "{title of incident " + i.Name + "}"
	}
	documents := func(links []detectors.Link) {
		for _, l := range links {
			texts[l.Title], texts[l.URL] = "{document}", "{address of document}"
		}
	}
	actions := func(actions []detectors.Action) {
		for _, a := range actions {
			texts[a.Text], texts[a.Role] = "{action}", "{role}"
		}
	}
	page, err := f.store.Search(t.Context(), SearchQuery{})
	if err != nil {
		t.Fatal(err)
	}
	for _, capabilities := range []catalogue.Capability{catalogue.CapabilityRecords, catalogue.AllCapabilities} {
		for i := range page.Records {
			d := &page.Records[i]
			report := f.renderer.Report(d, capabilities)
			texts[report.Summary] = "{summary of " + d.RequestID[len(d.RequestID)-2:] + "}"
			actions(report.Actions)
			documents(report.Links)
			for _, why := range f.renderer.Why(d, capabilities) {
				texts[why] = "{why}"
			}
			for _, unknown := range f.renderer.UnknownTexts(d) {
				texts[unknown] = "{unknown}"
			}
		}
	}
	incidents, err := f.store.Incidents(t.Context(), IncidentFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range incidents.Incidents {
		visible := incidents.Incidents[i].Visible(catalogue.CapabilityRecords, withheld)
		for _, incident := range []*detectors.Incident{&visible, &incidents.Incidents[i]} {
			texts[string(f.renderer.IncidentSummary(nil, incident))] = "{summary of " + incident.IncidentID + "}"
		}
		actions(f.renderer.IncidentActions(visible.Kind))
		for _, l := range f.catalogue.Incident(visible.Kind).Links {
			documents([]detectors.Link{{Title: l.Title, URL: l.URL}})
		}
	}
	code := NewCodeAnswer(f.catalogue.Code(50126))
	texts[fmt.Sprintf("%d %s", code.Code, code.Symbol)], texts[code.Meaning], texts[code.Remediation] = "{code and name}", "{meaning}", "{remediation}"
	texts[code.Link], texts[code.Category] = "{address of document}", "{family}"
	delete(texts, "")
}

// outline tells what a page means: landmarks, headings, tables, lists, links, form fields and texts, without classes. A text
// of texts stands under its name, and of a list of catalogue texts the first entry stands for all.
func outline(root *html.Node, texts map[string]string) string {
	say := func(text string) string {
		text = strings.Join(strings.Fields(text), " ")
		if name, ok := texts[text]; ok {
			return name
		}
		if headline, rest, ok := strings.Cut(text, " · "); ok { // the title of a page
			if scenario, subject, ok := strings.Cut(headline, ": "); ok && texts[scenario] != "" {
				return texts[scenario] + ": " + subject + " · " + rest
			}
			if texts[headline] != "" {
				return texts[headline] + " · " + rest
			}
		}
		return text
	}
	var b strings.Builder
	line := func(depth int, format string, args ...any) {
		fmt.Fprintf(&b, "%s"+format+"\n", append([]any{strings.Repeat("  ", depth)}, args...)...)
	}
	var walk func(n *html.Node, depth int)
	children := func(n *html.Node, depth int) {
		most := -1
		switch class := attribute(n, "class"); {
		case class == "actions", class == "plain":
			most = 1
		case n.Data == "select":
			most = 2
		}
		for c := range n.ChildNodes() {
			if c.Type == html.ElementNode {
				if most == 0 {
					return
				}
				most--
			}
			walk(c, depth)
		}
	}
	walk = func(n *html.Node, depth int) {
		switch n.Type {
		case html.TextNode:
			if text := say(n.Data); text != "" {
				line(depth, "%s", text)
			}
			return
		case html.ElementNode:
		default:
			children(n, depth)
			return
		}
		attributes := ""
		for _, name := range []string{"aria-label", "aria-current", "role", "href", "name", "value", "checked", "selected", "datetime", "scope", "hx-get", "hx-trigger", "data-copy", "hidden"} {
			for _, a := range n.Attr {
				if a.Key == name && !(name == "href" && strings.HasPrefix(a.Val, "/static/")) {
					attributes += " " + name
					if a.Val != "" {
						attributes += "=" + say(a.Val)
					}
				}
			}
		}
		switch n.Data {
		case "html", "head", "body", "tbody", "meta", "link", "script", "img":
			children(n, depth)
		case "div", "span", "code", "strong":
			if attributes == "" {
				children(n, depth)
				return
			}
			fallthrough
		default:
			if text, simple := onlyText(n); simple {
				line(depth, "%s%s: %s", n.Data, attributes, say(text))
				return
			}
			line(depth, "%s%s", n.Data, attributes)
			children(n, depth+1)
		}
	}
	walk(root, 0)
	return b.String()
}

// onlyText returns the text of an element that holds nothing else.
func onlyText(n *html.Node) (string, bool) {
	if n.FirstChild == nil || n.FirstChild != n.LastChild || n.FirstChild.Type != html.TextNode {
		return "", false
	}
	return strings.Join(strings.Fields(n.FirstChild.Data), " "), true
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// checkAccessible checks what every page owes to a keyboard and a screen reader.
func checkAccessible(t *testing.T, root *html.Node) {
	t.Helper()
	ids := map[string]bool{}
	for n := range root.Descendants() {
		if id := attribute(n, "id"); id != "" {
			if ids[id] {
				t.Errorf("the id %s stands twice", id)
			}
			ids[id] = true
		}
	}
	headings := 0
	whole := false
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "h1":
			headings++
		case "header":
			whole = whole || attribute(n, "class") == "top"
		case "input", "select":
			labelled := attribute(n, "aria-label") != ""
			for p := n.Parent; p != nil; p = p.Parent {
				labelled = labelled || p.Data == "label"
			}
			if !labelled {
				t.Errorf("the field %s has no label", attribute(n, "name"))
			}
		case "img":
			if !slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == "alt" }) {
				t.Error("an image has no alternative text")
			}
		case "th":
			if attribute(n, "scope") == "" {
				t.Error("a heading of a table has no scope")
			}
		}
		for _, a := range n.Attr {
			if (a.Key == "aria-labelledby" || a.Key == "href" && strings.HasPrefix(a.Val, "#")) && !ids[strings.TrimPrefix(a.Val, "#")] {
				t.Errorf("%s=%s names nothing", a.Key, a.Val)
			}
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" {
				t.Errorf("%s: the content security policy forbids %s", n.Data, a.Key)
			}
		}
	}
	if whole && headings != 1 {
		t.Errorf("%d first headings, want one", headings)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run go test -update", err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); first difference:\n%s", path, firstDifference(string(want), got))
	}
}

func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(a), len(b)) {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, x, y)
		}
	}
	return ""
}

func TestWriteText(t *testing.T) {
	f := newFixture(t)
	f.story(t)
	for name, id := range map[string]string{"text_correlation": correlation(3), "text_request": request(6), "text_workload": request(12)} {
		result, err := f.store.Find(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := WriteResult(&b, result, f.renderer, catalogue.AllCapabilities); err != nil {
			t.Fatal(err)
		}
		// What the renderer writes is its own affair.
		text := b.String()
		all := reports(result.Records, f.renderer, catalogue.AllCapabilities)
		replace := func(name string, write func(io.Writer) error) {
			var own bytes.Buffer
			if err := write(&own); err != nil {
				t.Fatal(err)
			}
			if own.Len() > 0 && !strings.Contains(text, own.String()) {
				t.Errorf("%s: %s is not in the text", id, name)
			}
			text = strings.Replace(text, own.String(), "{"+name+"}\n", 1)
		}
		replace("summary table", func(w io.Writer) error { return f.renderer.WriteSummaryTable(w, all...) })
		replace("report", func(w io.Writer) error { return f.renderer.WriteText(w, all[result.Decisive]) })
		if len(result.Incidents) > 0 {
			replace("incidents", func(w io.Writer) error {
				return writeIncidents(w, result.Incidents, f.renderer, catalogue.AllCapabilities)
			})
		}
		golden(t, name, text)
	}
	var b bytes.Buffer
	page, err := f.store.Search(t.Context(), SearchQuery{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	page.Records[0].User = "a\x1b[31mb\u202ec"
	page.Records[0].RequestID = "a\x1b[31mb"
	if err := WriteSearch(&b, page, f.renderer, catalogue.AllCapabilities); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\u202e") || !strings.Contains(b.String(), "More: --cursor "+page.NextCursor) {
		t.Errorf("text of a search:\n%q", b.String())
	}
	b.Reset()
	for _, err := range []error{
		WriteSearch(&b, &SearchPage{}, f.renderer, catalogue.AllCapabilities), WriteIncidents(&b, &IncidentPage{}, f.renderer, catalogue.AllCapabilities),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if b.String() != "No sign-in fits.\nNo incident fits.\n" {
		t.Errorf("got %q", b.String())
	}
	incidents, err := f.store.Incidents(t.Context(), IncidentFilter{})
	if err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if err := WriteIncidents(&b, incidents, f.renderer, catalogue.AllCapabilities); err != nil {
		t.Fatal(err)
	}
	detail, err := f.store.Incident(t.Context(), "incident-carol")
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteIncident(&b, detail, f.renderer, catalogue.AllCapabilities); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"incident-carol", "incident-surge", "Its records, newest first: 3 records", "2026-03-02 09:00:06"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the text of incidents does not hold %q:\n%s", want, b.String())
		}
	}
	for _, write := range []func(io.Writer) error{
		func(w io.Writer) error { return WriteIncident(w, detail, f.renderer, catalogue.AllCapabilities) },
		func(w io.Writer) error { return WriteIncidents(w, incidents, f.renderer, catalogue.AllCapabilities) },
		func(w io.Writer) error { return WriteSearch(w, page, f.renderer, catalogue.AllCapabilities) },
	} {
		if err := write(fullDisk{}); err == nil {
			t.Error("a write that failed was not reported")
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// TestOperatorsCatalogue: API, pages and text tell what the operator's file says.
func TestOperatorsCatalogue(t *testing.T) {
	f := newFixture(t)
	var err error
	f.catalogue, err = catalogue.LoadOverlay("contoso.yaml", []byte(`
codes:
  50126: {meaning: Contoso knows better.}
  999001: {category: other, meaning: The gateway of Contoso refused it., remediation: Ask Contoso.}
scenarios:
  wrong_password: {title: Typed wrong, summary: {failure: "{who} typed it wrong."}}
incidents:
  repeated_failures: {title: Too many at Contoso}
`))
	if err != nil {
		t.Fatal(err)
	}
	f.store = NewStore(f.conn, f.catalogue, nil)
	f.renderer = detectors.Renderer{Catalogue: f.catalogue}
	f.story(t)
	h := f.newServer(t, nil).Handler()
	for _, test := range []struct{ target, want string }{
		{"/v1/codes/50126", `"meaning":"Contoso knows better."`},
		{"/v1/codes/50126", `"scenario_title":"Typed wrong"`},
		{"/v1/codes/999001", `"link":"https://login.microsoftonline.com/error?code=999001"`},
		{"/codes/999001", "The gateway of Contoso refused it."},
		{"/v1/diagnoses/" + correlation(6), "Carol@contoso.example typed it wrong."},
		{"/diagnoses/" + correlation(6), "Typed wrong"},
		{"/incidents/incident-carol", "Too many at Contoso"},
	} {
		if response, body := get(t, h, test.target, ""); response.StatusCode != 200 || !strings.Contains(body, test.want) {
			t.Errorf("GET %s: status %d, want %q in\n%s", test.target, response.StatusCode, test.want, body)
		}
	}
}

// openAPI is schemas/openapi.yaml, as far as the tests hold answers against it.
type openAPI struct {
	Paths      map[string]map[string]operation `yaml:"paths"`
	Components struct {
		Schemas   map[string]map[string]any `yaml:"schemas"`
		Responses map[string]responseObject `yaml:"responses"`
	} `yaml:"components"`
}

type operation struct {
	Parameters []struct {
		Name string `yaml:"name"`
		In   string `yaml:"in"`
	} `yaml:"parameters"`
	Responses map[string]responseObject `yaml:"responses"`
}

type responseObject struct {
	Ref     string `yaml:"$ref"`
	Content map[string]struct {
		Schema map[string]any `yaml:"schema"`
	} `yaml:"content"`
}

func loadOpenAPI(t *testing.T) *openAPI {
	t.Helper()
	var api openAPI
	if err := yaml.Unmarshal(schemas.OpenAPI, &api); err != nil {
		t.Fatal(err)
	}
	return &api
}

// find returns the operation of a path.
func (api *openAPI) find(path string) (operation, bool) {
	for template, methods := range api.Paths {
		a, b := strings.Split(template, "/"), strings.Split(path, "/")
		if len(a) != len(b) {
			continue
		}
		same := true
		for i := range a {
			same = same && (a[i] == b[i] || strings.HasPrefix(a[i], "{") && b[i] != "openapi.yaml")
		}
		if same {
			return methods["get"], true
		}
	}
	return operation{}, false
}

// check holds an answer against the description: its status, and its body against the schema.
func (api *openAPI) check(t *testing.T, target string, status int, body string) {
	t.Helper()
	path, _, _ := strings.Cut(target, "?")
	operation, ok := api.find(path)
	if !ok {
		t.Errorf("openapi.yaml does not describe %s", path)
		return
	}
	response, ok := operation.Responses[fmt.Sprint(status)]
	if !ok {
		t.Errorf("openapi.yaml does not describe the status %d of %s", status, path)
		return
	}
	if response.Ref != "" {
		response = api.Components.Responses[strings.TrimPrefix(response.Ref, "#/components/responses/")]
	}
	var value any
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		t.Errorf("GET %s: %v", target, err)
		return
	}
	schema := response.Content["application/json"].Schema
	if schema == nil {
		t.Errorf("openapi.yaml has no schema for the status %d of %s", status, path)
		return
	}
	for _, problem := range api.validate("", schema, value) {
		t.Errorf("GET %s: the answer is not as openapi.yaml says: %s", target, problem)
	}
}

// validate knows the words of JSON Schema that openapi.yaml uses.
func (api *openAPI) validate(at string, schema map[string]any, value any) (problems []string) {
	problem := func(format string, args ...any) {
		problems = append(problems, at+": "+fmt.Sprintf(format, args...))
	}
	if ref, ok := schema["$ref"].(string); ok {
		target := api.Components.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")]
		if target == nil {
			problem("%s does not exist", ref)
			return problems
		}
		return api.validate(at, target, value)
	}
	if constant, ok := schema["const"]; ok && constant != value {
		problem("%v is not %v", value, constant)
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, value) {
		problem("%v is not one of %v", value, enum)
	}
	switch schema["type"] {
	case "string":
		if _, ok := value.(string); !ok {
			problem("%v is no string", value)
		}
	case "integer":
		if n, ok := value.(json.Number); !ok || strings.ContainsAny(n.String(), ".eE") {
			problem("%v is no integer", value)
		}
	case "number":
		if _, ok := value.(json.Number); !ok {
			problem("%v is no number", value)
		}
	case "boolean":
		if _, ok := value.(bool); !ok {
			problem("%v is no boolean", value)
		}
	case "array":
		list, ok := value.([]any)
		if !ok {
			problem("%v is no array", value)
			break
		}
		items, _ := schema["items"].(map[string]any)
		for i, item := range list {
			problems = append(problems, api.validate(fmt.Sprintf("%s[%d]", at, i), items, item)...)
		}
	case "object":
		object, ok := value.(map[string]any)
		if !ok {
			problem("%v is no object", value)
			break
		}
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, ok := object[name.(string)]; !ok {
				problem("%v is missing", name)
			}
		}
		for name, member := range object {
			if property, ok := properties[name].(map[string]any); ok {
				problems = append(problems, api.validate(at+"."+name, property, member)...)
			} else if schema["additionalProperties"] == false {
				problem("%s is not described", name)
			} else if additional, ok := schema["additionalProperties"].(map[string]any); ok {
				problems = append(problems, api.validate(at+"."+name, additional, member)...)
			}
		}
	case nil:
	default:
		problem("the test does not know the type %v", schema["type"])
	}
	return problems
}

// TestOpenAPIIsComplete compares the routes with the description, both ways, and the parameters with what is accepted.
func TestOpenAPIIsComplete(t *testing.T) {
	f := newFixture(t)
	s := f.newServer(t, nil)
	h := s.Handler()
	api := loadOpenAPI(t)
	var routes []string
	s.routeAPI(func(pattern string, _ http.HandlerFunc) {
		if path := strings.TrimPrefix(pattern, "GET "); path != "/v1/" {
			routes = append(routes, path)
		}
	})
	routes = append(routes, "/healthz", "/readyz", "/metrics")
	for _, route := range routes {
		if _, ok := api.Paths[route]; !ok {
			t.Errorf("openapi.yaml does not describe %s", route)
		}
	}
	for path, methods := range api.Paths {
		if !slices.Contains(routes, path) {
			t.Errorf("openapi.yaml describes %s, which is not there", path)
		}
		for _, p := range methods["get"].Parameters {
			if p.In != "query" {
				continue
			}
			// A parameter that is described is not refused as unknown, whatever is said of its value.
			target := strings.NewReplacer("{id}", request(1), "{code}", "1").Replace(path) + "?" + p.Name + "=x"
			if _, body := get(t, h, target, ""); strings.Contains(body, "unknown parameter") {
				t.Errorf("GET %s: %s", target, body)
			}
		}
	}
	// The other way: what the handlers accept is named in the error about an unknown one.
	for _, path := range []string{"/v1/diagnoses/{id}", "/v1/diagnoses", "/v1/incidents"} {
		_, body := get(t, h, strings.ReplaceAll(path, "{id}", request(1))+"?no_such=1", "")
		var answer ErrorAnswer
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		_, names, _ := strings.Cut(answer.Error, "expected ")
		for name := range strings.SplitSeq(names, ", ") {
			if !slices.ContainsFunc(api.Paths[path]["get"].Parameters, func(p struct {
				Name string `yaml:"name"`
				In   string `yaml:"in"`
			}) bool {
				return p.Name == name
			}) {
				t.Errorf("openapi.yaml does not describe the parameter %s of %s", name, path)
			}
		}
	}
}
