package lookup

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
)

// browserTimeout bounds one run of the browser. It is far above what a run takes.
const browserTimeout = 2 * time.Minute

// browser returns the path of an installed Chromium, and skips the test without one unless it is required.
func browser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const reason = "no Chromium is installed (looked for chromium, chromium-browser, google-chrome, google-chrome-stable, chrome)"
	if strings.Contains(os.Getenv(embeddedtest.RequireVariable), "browser") {
		t.Fatal(reason)
	}
	t.Skip("skipped: " + reason)
	return ""
}

// visit loads a page in the browser, lets virtual time pass, and returns the document as it is then, and the log with the
// messages of the page's console.
func visit(t *testing.T, path, address string, virtual time.Duration) (root *html.Node, log string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), browserTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, path,
		"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+filepath.Join(t.TempDir(), "profile"), "--enable-logging=stderr", "--v=0",
		fmt.Sprintf("--virtual-time-budget=%d", virtual.Milliseconds()), "--dump-dom", address)
	var out, err bytes.Buffer
	command.Stdout, command.Stderr = &out, &err
	// Children of the browser may hold its streams a little longer than it runs.
	command.WaitDelay = 10 * time.Second
	if runErr := command.Run(); runErr != nil {
		t.Fatalf("%s: %v\n%s", path, runErr, err.String())
	}
	root, parseErr := html.Parse(&out)
	if parseErr != nil {
		t.Fatal(parseErr)
	}
	var console []string
	for line := range strings.Lines(err.String()) {
		if strings.Contains(line, "CONSOLE") {
			console = append(console, strings.TrimSpace(line))
		}
	}
	return root, strings.Join(console, "\n")
}

// TestBrowser loads the pages in a real browser: scripts run under the content security policy, copy buttons come to
// life, and the first page refreshes itself.
func TestBrowser(t *testing.T) {
	path := browser(t)
	f := newFixture(t)
	f.story(t)
	h := f.newServer(t, nil).Handler()
	var mu sync.Mutex
	partials := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/partials/recent" && r.Header.Get("HX-Request") == "true" {
			mu.Lock()
			partials++
			first := partials == 1
			mu.Unlock()
			if first {
				// What happens while the page is open appears in it.
				d := record(50)
				d.User = "dora@contoso.example"
				f.write(t, &detectors.Rows{Diagnoses: []detectors.Diagnosis{d}})
			}
		}
		h.ServeHTTP(w, r)
	}))
	defer server.Close()

	root, console := visit(t, path, server.URL+"/", 35*time.Second)
	if console != "" {
		t.Errorf("the first page complains: %s", console)
	}
	mu.Lock()
	if partials == 0 {
		t.Error("the first page did not refresh itself")
	}
	mu.Unlock()
	found := false
	for n := range root.Descendants() {
		found = found || attribute(n, "data-request") == request(50)
	}
	if !found {
		t.Error("a problem that arrived while the first page was open is not on it")
	}
	checkAccessible(t, root)

	root, console = visit(t, path, server.URL+"/diagnoses/"+correlation(3), time.Second)
	if console != "" {
		t.Errorf("the result page complains: %s", console)
	}
	buttons, titles := 0, 0
	for n := range root.Descendants() {
		switch {
		case n.Data == "button" && attribute(n, "class") == "copy":
			buttons++
			for _, a := range n.Attr {
				if a.Key == "hidden" {
					t.Errorf("the button %q stayed hidden", attribute(n, "aria-label"))
				}
			}
		case n.Data == "time" && strings.HasPrefix(attribute(n, "title"), "Local time: "):
			titles++
		}
	}
	if buttons < 4 || titles < 3 {
		t.Errorf("%d copy buttons, %d local times: the page's script did not run", buttons, titles)
	}
}
