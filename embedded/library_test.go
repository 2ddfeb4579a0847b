package embedded_test

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/embedded/embeddedtest"
)

// standIn puts a shell script under a program's name in front of PATH, or alone on it.
func standIn(t *testing.T, name, script string, alone bool) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	path := dir
	if !alone {
		path += string(os.PathListSeparator) + os.Getenv("PATH")
	}
	t.Setenv("PATH", path)
}

// deliver is an npm that installs a sparse file of the right size, with a given checksum in its lock file,
// and counts its runs in the file runs beside the cache.
func deliver(runs, integrity string, size int64) string {
	name, _, _ := embedded.LibraryPackage(runtime.GOOS + "/" + runtime.GOARCH)
	return fmt.Sprintf(`echo run >> %s
[ "$1 $2" = "install --prefix" ] || exit 3
mkdir -p "$3/node_modules/%s"
truncate -s %d "$3/node_modules/%s/libchdb.so"
sleep 0.3
echo '{"packages":{"node_modules/%s":{"integrity":"%s"}}}' > "$3/node_modules/.package-lock.json"
`, runs, name, size, name, name, integrity)
}

func TestFetchLibrary(t *testing.T) {
	name, integrity, size := embedded.LibraryPackage(runtime.GOOS + "/" + runtime.GOARCH)
	if integrity == "" {
		t.Skipf("no checksum is known for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	runs := filepath.Join(t.TempDir(), "runs")
	for _, test := range []struct {
		name   string
		script string
		want   []string // In the error; none: it works.
	}{
		{"works", deliver(runs, integrity, size), nil},
		{"wrong checksum", deliver(runs, "sha512-AAAA", size), []string{"checksum"}},
		{"cut short", deliver(runs, integrity, size-1), []string{"does not hold"}},
		{"npm fails", "echo >&2 'npm warn old'; echo >&2 'npm error code E404'; echo >&2 'npm error 404 not found'; exit 1", []string{"exit status 1", "exit status 1: npm error code E404; npm error 404 not found"}},
		{"npm delivers nothing", "exit 0", []string{"what npm has installed"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			standIn(t, "npm", test.script, false)
			cache := t.TempDir()
			path, err := embedded.FetchLibrary(t.Context(), cache, nil)
			left, globErr := filepath.Glob(filepath.Join(cache, "clickhouse", "fetching-*"))
			if globErr != nil || len(left) > 0 {
				t.Errorf("left behind: %v (%v)", left, globErr)
			}
			target := filepath.Join(cache, "clickhouse", embedded.LibraryVersion, "libchdb.so")
			if test.want == nil {
				if err != nil || path != target {
					t.Fatalf("got %q, %v, expected %s", path, err, target)
				}
				if _, err := embedded.FetchLibrary(t.Context(), cache, nil); err != nil {
					t.Error(err)
				}
				return
			}
			var missing *embedded.LibraryError
			if !errors.As(err, &missing) {
				t.Fatalf("got %v, expected a *LibraryError", err)
			}
			// The way out is in the error, whatever went wrong.
			for _, want := range append(test.want, name+"@"+embedded.LibraryVersion, target, embedded.LibraryVariable) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error %q does not contain %q", err, want)
				}
			}
			if _, err := os.Stat(target); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("something is in the library's place: %v", err)
			}
		})
	}
	if text, err := os.ReadFile(runs); err != nil || strings.Count(string(text), "run") != 3 {
		t.Errorf("npm ran %d times (%v), expected once per download and not for what is in the cache", strings.Count(string(text), "run"), err)
	}
}

func TestFetchLibraryWithoutNPM(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := embedded.FetchLibrary(t.Context(), t.TempDir(), nil)
	var missing *embedded.LibraryError
	if !errors.As(err, &missing) || !strings.Contains(err.Error(), "no npm") || !strings.Contains(err.Error(), embedded.LibraryVariable) {
		t.Errorf("got %v, expected a *LibraryError that says what to do", err)
	}
}

func TestFetchLibraryOnce(t *testing.T) {
	_, integrity, size := embedded.LibraryPackage(runtime.GOOS + "/" + runtime.GOARCH)
	runs, cache := filepath.Join(t.TempDir(), "runs"), t.TempDir()
	standIn(t, "npm", deliver(runs, integrity, size), false)
	// What a killed fetch leaves behind.
	if err := os.MkdirAll(filepath.Join(cache, "clickhouse", "fetching-1", "node_modules"), 0o700); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			if _, err := embedded.FetchLibrary(t.Context(), cache, nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if text, err := os.ReadFile(runs); err != nil || strings.Count(string(text), "run") != 1 {
		t.Errorf("npm ran %d times (%v), expected once", strings.Count(string(text), "run"), err)
	}
	if left, err := filepath.Glob(filepath.Join(cache, "clickhouse", "fetching-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestFetchLibraryCancelled(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	standIn(t, "npm", "echo $$ > "+pidFile+".new; mv "+pidFile+".new "+pidFile+"; exec sleep 600", false)
	cache := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	var pid int
	_, err := embedded.FetchLibrary(ctx, cache, func(p embedded.Progress) {
		if p.Stage != embedded.StageFetch || p.Text == "" {
			t.Errorf("progress %+v", p)
		}
		if text, err := os.ReadFile(pidFile); err == nil {
			if _, err := fmt.Sscan(string(text), &pid); err != nil {
				t.Error(err)
			}
			cancel(errors.New("changed my mind"))
		}
	})
	if err == nil || !strings.Contains(err.Error(), "changed my mind") {
		t.Errorf("got %v, expected the cause of the cancellation", err)
	}
	if pid == 0 || embedded.ProcessAlive(pid) {
		t.Errorf("npm (process %d) lives on", pid)
	}
	if left, err := filepath.Glob(filepath.Join(cache, "clickhouse", "fetching-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// TestFetchLibraryDiesWithItsParent kills a process that is fetching; npm must not go on.
func TestFetchLibraryDiesWithItsParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends npm with its parent; elsewhere it finishes into a directory that the next fetch removes")
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	standIn(t, "npm", "echo $$ > "+pidFile+".new; mv "+pidFile+".new "+pidFile+"; exec sleep 600", false)
	t.Setenv(embedded.LibraryVariable, "")
	parent := startRole(t, role{Part: "clickhouse", Dir: t.TempDir(), Cache: t.TempDir()})
	var pid int
	for pid == 0 {
		text, err := os.ReadFile(pidFile)
		if err == nil {
			_, err = fmt.Sscan(string(text), &pid)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	parent.kill()
	waitGone(t, pid)
}

// installProgram puts a clickhouse on PATH that is this test binary; see playProgram.
func installProgram(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(role{Part: "program", Library: embeddedtest.Library(t)})
	if err != nil {
		t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	standIn(t, "clickhouse", fmt.Sprintf("%s='%s' exec %s \"$@\"\n", roleVariable, text, executable), false)
	t.Setenv(embedded.LibraryVariable, "")
}

func TestInstalledProgram(t *testing.T) {
	installProgram(t)
	dir := t.TempDir()
	cfg := embedded.ClickHouseConfig{DataDir: dir, CacheDir: t.TempDir()}
	var stages []string
	cfg.Progress = func(p embedded.Progress) { stages = append(stages, p.Stage+": "+p.Text) }
	for round := range 2 {
		c, err := embedded.StartClickHouse(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		fillTable(t, c.Address(), 1000*(round+1))
		checkTable(t, c.Address(), uint64(1000*(round+1)))
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(strings.Join(stages, "\n"), "installed program") {
		t.Errorf("the installed program was not used: %q", stages)
	}

	parent := startRole(t, role{Part: "clickhouse", Dir: dir, Cache: t.TempDir(), DeathSignal: true})
	checkTable(t, parent.ready(t).Address, 2000)
	parent.kill()
	ctx, cancel := context.WithTimeout(t.Context(), 2*embedded.StopTimeout)
	defer cancel()
	if err := embedded.WaitForLock(ctx, filepath.Join(dir, "clickhouse.lock")); err != nil {
		t.Fatalf("the engine outlived its parent: %v", err)
	}
}

func TestInstalledProgramVersions(t *testing.T) {
	for _, test := range []struct {
		output  string
		written string // Version that has written the data.
		want    string // In the error; empty: it is used.
	}{
		{"ClickHouse server version 26.7.2.1 (official build).", "", ""},
		{"ClickHouse server version 25.8.1.5101 (official build).", "25.8.3.1", ""},
		{"ClickHouse server version 25.8.1.5101 (official build).", "26.7.2.1", "the data in"},
		{"ClickHouse server version 18.16.1.", "", "needed is 25.8"},
		{"no version at all", "", "needed is"},
	} {
		standIn(t, "clickhouse", "echo '"+test.output+"'", false)
		dir := t.TempDir()
		if test.written != "" {
			embedded.WriteEngineVersion(dir, test.written)
		}
		program, err := embedded.InstalledProgram(t.Context(), dir)
		if test.want == "" && (err != nil || program == "") || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: got %q, %v", test, program, err)
		}
	}
}

func TestServerConfig(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a & <b>")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path, err := embedded.WriteServerConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Path   string `xml:"path"`
		Users  string `xml:"users_config"`
		TCP    int    `xml:"tcp_port"`
		HTTP   int    `xml:"http_port"`
		Listen string `xml:"listen_host"`
		Memory int64  `xml:"max_server_memory_usage"`
		Mark   string `xml:"macros>signindiag"`
	}
	if err := xml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	if config.Path != filepath.Join(dir, "server")+"/" || config.TCP != 9000 || config.HTTP != 8123 ||
		config.Listen != "127.0.0.1" || config.Memory != 4<<30 || config.Mark != "MARK" {
		t.Errorf("config.xml says %+v", config)
	}
	file, err := os.Open(config.Users)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for decoder := xml.NewDecoder(file); ; { // Well-formed to its end.
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
