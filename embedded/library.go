package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	// LibraryVariable names the environment variable with the path of libchdb.so, for machines without npm.
	LibraryVariable = "SIGNINDIAG_CLICKHOUSE_LIBRARY"
	// libraryVersion is the version of the npm packages in libraryPackages. It carries ClickHouse 26.7.2.1
	// (SELECT version()); Apache-2.0; published 2026-09-18.
	libraryVersion = "26.7.3-stable.1"
	libraryFile    = "libchdb.so"
	// oldestProgram is the oldest installed ClickHouse that is used, major*100+minor: 25.8 is the long-term
	// support release before 26.3.
	oldestProgram = 2508
)

// libraryPackage is an npm package that carries the library for one platform.
type libraryPackage struct {
	name string
	// integrity is the checksum of the package as npm writes it; empty where only npm's own check holds.
	integrity string
	// size is that of the unpacked library in bytes, 0 where it is not known.
	size int64
}

// libraryPackages by GOOS/GOARCH: the optional dependencies of the npm package chdb 3.4.0.
var libraryPackages = map[string]libraryPackage{
	"linux/amd64": {
		name:      "@chdb/lib-linux-x64-gnu",
		integrity: "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
		size:      566330096,
	},
	"linux/arm64":  {name: "@chdb/lib-linux-arm64-gnu"},
	"darwin/arm64": {name: "@chdb/lib-darwin-arm64"},
	"darwin/amd64": {name: "@chdb/lib-darwin-x64"},
}

// LibraryError reports that there is no engine to start: none installed, none configured, none in the
// cache, and npm could not bring it.
type LibraryError struct {
	// Package is the npm package with version that carries the library; empty where there is none for this platform.
	Package string
	// Path is where the file from the package would be found.
	Path string
	// Err is what went wrong with npm.
	Err error
}

// Error says what went wrong and which file to put where.
func (e *LibraryError) Error() string {
	if e.Package == "" {
		return fmt.Sprintf("no ClickHouse engine: %v; install the program clickhouse (25.8 or newer), use a ClickHouse server of your own, or set %s to the path of libchdb.so",
			e.Err, LibraryVariable)
	}
	return fmt.Sprintf("no ClickHouse engine: %v; fetch the npm package %s on any machine and put its file %s at %s, or set %s to its path, or install the program clickhouse (25.8 or newer)",
		e.Err, e.Package, libraryFile, e.Path, LibraryVariable)
}

// Unwrap returns what went wrong with npm.
func (e *LibraryError) Unwrap() error { return e.Err }

// engineSource is where the engine comes from: a library or an installed program.
type engineSource struct {
	library string
	program string
}

func (s engineSource) String() string {
	if s.program != "" {
		return "installed program " + s.program
	}
	return "library " + s.library
}

// findEngine looks for an engine in the order that ClickHouseConfig.Library describes.
func findEngine(ctx context.Context, cfg *ClickHouseConfig) (engineSource, error) {
	library, given := cfg.Library, "the given library"
	if library == "" {
		library, given = os.Getenv(LibraryVariable), LibraryVariable
	}
	if library != "" {
		path, err := filepath.Abs(library)
		if err == nil {
			err = checkRegular(path)
		}
		if err != nil {
			return engineSource{}, fmt.Errorf("%s: %w; expected the path of %s", given, err, libraryFile)
		}
		return engineSource{library: path}, nil
	}
	if !cfg.IgnoreInstalled {
		if program, err := installedProgram(ctx, cfg.DataDir); err == nil {
			return engineSource{program: program}, nil
		} else if !errors.Is(err, exec.ErrNotFound) {
			cfg.Logger.Info("the installed clickhouse is not used", "reason", err)
		}
	}
	path, err := fetchLibrary(ctx, cfg.CacheDir, cfg.Progress)
	if err != nil {
		return engineSource{}, err
	}
	return engineSource{library: path}, nil
}

func checkRegular(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", path)
	}
	return nil
}

var versionPattern = regexp.MustCompile(`\b(\d+)\.(\d+)\.\d+`)

// parseVersion reads the first a.b.c in a text as a*100+b; 0 when there is none.
func parseVersion(text string) int {
	match := versionPattern.FindStringSubmatch(text)
	if match == nil {
		return 0
	}
	major, _ := strconv.Atoi(match[1])
	minor, _ := strconv.Atoi(match[2])
	return major*100 + minor
}

// installedProgram finds a clickhouse on PATH that is new enough, also for the data in dataDir: ClickHouse
// does not promise to read what a newer one has written.
func installedProgram(ctx context.Context, dataDir string) (string, error) {
	program, err := exec.LookPath("clickhouse")
	if err != nil {
		return "", err
	}
	ask, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	output, err := exec.CommandContext(ask, program, "server", "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s server --version: %w: %s", program, err, bytes.TrimSpace(output))
	}
	version := parseVersion(string(output))
	if version < oldestProgram {
		return "", fmt.Errorf("%s is version %d.%d, needed is %d.%d", program, version/100, version%100, oldestProgram/100, oldestProgram%100)
	}
	if written := readEngineVersion(dataDir); version < written {
		return "", fmt.Errorf("%s is version %d.%d, the data in %s is of %d.%d", program, version/100, version%100, dataDir, written/100, written%100)
	}
	return program, nil
}

func engineVersionPath(dataDir string) string { return filepath.Join(dataDir, "engine.version") }

// writeEngineVersion notes which version has opened the data last. It only steers the choice of an
// installed program, so that a failure is not worth an error.
func writeEngineVersion(dataDir, version string) {
	_ = os.WriteFile(engineVersionPath(dataDir), []byte(version+"\n"), 0o640)
}

func readEngineVersion(dataDir string) int {
	text, err := os.ReadFile(engineVersionPath(dataDir))
	if err != nil {
		return 0
	}
	return parseVersion(string(text))
}

// FetchLibrary returns the path of the pinned library in a cache directory (empty: the user's), and brings
// it there with npm when it is missing or incomplete. Several processes may ask at once: one fetches, the
// others wait. Cancelling ctx ends npm. Errors are *LibraryError, or ctx's.
func FetchLibrary(ctx context.Context, cacheDir string, progress func(Progress)) (string, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	return fetchLibrary(ctx, cacheDir, progress)
}

func fetchLibrary(ctx context.Context, cacheDir string, progress func(Progress)) (string, error) {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	from, known := libraryPackages[platform]
	if !known {
		return "", &LibraryError{Err: fmt.Errorf("there is no library for %s", platform)}
	}
	if cacheDir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the user's cache directory: %w", err)
		}
		cacheDir = filepath.Join(user, "signindiag")
	}
	cacheDir, err := filepath.Abs(cacheDir)
	if err != nil {
		return "", fmt.Errorf("cache directory: %w", err)
	}
	base := filepath.Join(cacheDir, "clickhouse")
	target := filepath.Join(base, libraryVersion, libraryFile)
	if libraryComplete(target, from) {
		return target, nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	lock, err := waitForFetch(ctx, filepath.Join(base, "fetch.lock"), progress)
	if err != nil {
		return "", err
	}
	defer lock.release()
	if libraryComplete(target, from) { // Somebody else has brought it meanwhile.
		return target, nil
	}
	if err := fetchWithNPM(ctx, base, target, from, progress); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("fetch the ClickHouse library: %w", context.Cause(ctx))
		}
		return "", &LibraryError{Package: from.name + "@" + libraryVersion, Path: target, Err: err}
	}
	return target, nil
}

// libraryComplete tells whether the library is there in full. Its bytes were checked when it was fetched;
// the size shows a file that was put there by hand and cut short.
func libraryComplete(path string, from libraryPackage) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() > 0 && (from.size == 0 || info.Size() == from.size)
}

// waitForFetch takes the lock of the cache and waits for it as long as ctx allows.
func waitForFetch(ctx context.Context, path string, progress func(Progress)) (*fileLock, error) {
	for first := true; ; first = false {
		lock, err := lockFile(path)
		var locked *LockedError
		if err == nil || !errors.As(err, &locked) {
			return lock, err
		}
		if first {
			progress(Progress{Stage: StageFetch, Text: fmt.Sprintf("Waiting for process %d, which is fetching the ClickHouse library", locked.PID)})
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for process %d to fetch the ClickHouse library: %w", locked.PID, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// fetchWithNPM installs the package into a directory beside the target, checks what came, and renames the
// library into its place. The lock of the cache is held.
func fetchWithNPM(ctx context.Context, base, target string, from libraryPackage, progress func(Progress)) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("there is no npm on this machine to fetch it")
	}
	const pattern = "fetching-"
	leftovers, err := filepath.Glob(filepath.Join(base, pattern+"*"))
	if err != nil {
		return err
	}
	for _, leftover := range leftovers { // Of fetches that were killed.
		if err := os.RemoveAll(leftover); err != nil {
			return fmt.Errorf("remove an unfinished download: %w", err)
		}
	}
	dir, err := os.MkdirTemp(base, pattern)
	if err != nil {
		return fmt.Errorf("make a directory for the download: %w", err)
	}
	defer os.RemoveAll(dir)

	var output bytes.Buffer
	cmd := exec.Command(npm, "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--no-save",
		"--no-update-notifier", "--no-progress", "--loglevel=error", from.name+"@"+libraryVersion)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &output, &output
	process, err := startChild(cmd, true)
	if err != nil {
		return fmt.Errorf("start npm: %w", err)
	}
	text := fmt.Sprintf("Fetching the ClickHouse library (npm package %s, once)", from.name)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for waiting := true; waiting; {
		progress(Progress{Stage: StageFetch, Text: text, Done: treeSize(dir), Total: from.size})
		select {
		case <-tick.C:
		case <-process.done:
			waiting = false
		case <-ctx.Done():
			process.kill()
			<-process.done
			return context.Cause(ctx)
		}
	}
	if err := process.wait(); err != nil {
		return fmt.Errorf("npm: %w: %s", err, errorLines(output.String(), 5))
	}
	brought := filepath.Join(dir, "node_modules", filepath.FromSlash(from.name), libraryFile)
	if err := checkIntegrity(dir, from); err != nil {
		return err
	}
	if !libraryComplete(brought, from) {
		return fmt.Errorf("npm package %s@%s does not hold %s of %d bytes", from.name, libraryVersion, libraryFile, from.size)
	}
	if err := syncFile(brought); err != nil {
		return fmt.Errorf("write the library to disk: %w", err)
	}
	if err := os.Rename(brought, target); err != nil {
		return fmt.Errorf("put the library into its place: %w", err)
	}
	progress(Progress{Stage: StageFetch, Text: text, Done: from.size, Total: from.size})
	return nil
}

// checkIntegrity compares the checksum of the package that npm has verified with ours, so that nobody who
// can change a registry's answer changes what is loaded. npm notes it in a lock file of its own.
func checkIntegrity(dir string, from libraryPackage) error {
	if from.integrity == "" {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(dir, "node_modules", ".package-lock.json"))
	if err != nil {
		return fmt.Errorf("read what npm has installed: %w", err)
	}
	var lock struct {
		Packages map[string]struct{ Integrity string }
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		return fmt.Errorf("read what npm has installed: %w", err)
	}
	if got := lock.Packages["node_modules/"+from.name].Integrity; got != from.integrity {
		return fmt.Errorf("npm package %s@%s has checksum %q, expected %q", from.name, libraryVersion, got, from.integrity)
	}
	return nil
}

// treeSize adds up the files below dir, as far as they can be seen while they change.
func treeSize(dir string) int64 {
	var size int64
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				size += info.Size()
			}
		}
		return nil
	})
	return size
}

func syncFile(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// errorLines returns the first n lines of npm's output that are not warnings, joined by semicolons. npm
// says first what went wrong, and then gives general advice.
func errorLines(text string, n int) string {
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "npm warn") || len(lines) == n {
			continue
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}
