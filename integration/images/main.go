// Command images builds, on this machine, the images that stand in for official ones where no registry can be reached, for the
// tests with containers. It prints the variables that name them, as lines for a shell's eval.
//
//	eval "$(go run ./integration/images)"
//
// Each is an empty image with this machine's own C library, a few of its programs, and what is to run: Apache Kafka from Maven's
// jars with this machine's Java, ClickHouse out of libchdb, Prometheus and Alertmanager where they are installed, and signindiag
// itself by deploy/Dockerfile.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/signindiag/signindiag/embedded"
	"github.com/signindiag/signindiag/integration/servers"
)

// prefix begins the names of the images.
const prefix = "signindiag-test/"

// libraryFiles matches what ldd prints of a shared library.
var libraryFiles = regexp.MustCompile(`(?m)(/\S+) \(0x`)

func main() {
	ctx, end := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer end()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "images: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	root, err := command(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "signindiag-images-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l := layout{ctx: ctx, root: root, source: filepath.Join(root, "integration", "images"), dir: dir, copied: map[string]bool{}}
	l.base()
	l.kafka()
	l.clickHouse()
	images := []string{"base", "go", "kafka", "clickhouse"} // the others begin with the first
	for program, tool := range map[string]string{"prometheus": "promtool", "alertmanager": "amtool"} {
		if l.installed(program, tool) {
			images = append(images, program)
		}
	}
	l.golang()
	if l.err != nil {
		return l.err
	}
	for _, i := range images {
		if err := build(ctx, i, "--file", filepath.Join(l.source, i, "Dockerfile"), filepath.Join(dir, i)); err != nil {
			return err
		}
		if i != "base" && i != "go" {
			fmt.Printf("export SIGNINDIAG_TEST_%s_IMAGE=%s%s\n", strings.ToUpper(i), prefix, i)
		}
	}
	if err := build(ctx, "signindiag", "--build-arg", "GO_IMAGE="+prefix+"go", "--file", filepath.Join(root, "deploy", "Dockerfile"), root); err != nil {
		return err
	}
	fmt.Printf("export SIGNINDIAG_TEST_IMAGE=%ssignindiag\n", prefix)
	return nil
}

// build has docker build an image; what docker prints goes to standard error.
func build(ctx context.Context, name string, args ...string) error {
	fmt.Fprintf(os.Stderr, "images: %s\n", name)
	c := exec.CommandContext(ctx, "docker", append([]string{"build", "--quiet", "--tag", prefix + name}, args...)...)
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("build the image %s: %w", name, err)
	}
	return nil
}

// layout makes the build context: one directory per image, each a root file system. The first error stays.
type layout struct {
	ctx               context.Context
	root, source, dir string
	copied            map[string]bool
	err               error
}

func (l *layout) do(err error) {
	if l.err == nil {
		l.err = err
	}
}

// base is what all have: users, certificates, time zone, a shell and a few programs, with their libraries.
func (l *layout) base() {
	l.write("base/etc/passwd", "root:x:0:0:root:/:/bin/sh\nappuser:x:1000:1000:appuser:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n", 0o644)
	l.write("base/etc/group", "root:x:0:\nappuser:x:1000:\nnogroup:x:65534:\n", 0o644)
	l.write("base/etc/nsswitch.conf", "hosts: files dns\n", 0o644)
	for _, name := range []string{"sh", "cat", "ls", "sleep"} {
		path, err := exec.LookPath(name)
		l.do(err)
		l.program(path, "base/bin/"+name)
	}
	l.do(os.MkdirAll(filepath.Join(l.dir, "base/tmp"), 0o777))
	l.do(os.Chmod(filepath.Join(l.dir, "base/tmp"), 0o1777))
}

// kafka is Apache Kafka with this machine's Java.
func (l *layout) kafka() {
	jars, err := servers.KafkaJars()
	if err != nil {
		l.do(fmt.Errorf("find Apache Kafka's jars: %w", err))
		return
	}
	l.tree(jars, "kafka/opt/kafka/libs")
	settings, err := exec.CommandContext(l.ctx, "java", "-XshowSettings:properties", "-version").CombinedOutput()
	home := regexp.MustCompile(`java\.home = (\S+)`).FindSubmatch(settings)
	if err != nil || home == nil {
		l.do(fmt.Errorf("java does not tell its home: %v\n%s", err, settings))
		return
	}
	l.tree(string(home[1]), "kafka/opt/java")
	l.copy(filepath.Join(l.source, "kafka", "run"), "kafka/etc/kafka/docker/run")
	l.copy(filepath.Join(l.source, "kafka", "server.properties"), "kafka/etc/kafka/docker/server.properties")
	l.copy(filepath.Join(l.source, "kafka", "kafka-topics.sh"), "kafka/opt/kafka/bin/kafka-topics.sh")
	for _, dir := range []string{"opt/kafka/config", "etc/kafka/secrets", "var/lib/kafka/data", "mnt/shared/config"} {
		l.do(os.MkdirAll(filepath.Join(l.dir, "kafka", dir), 0o755))
	}
}

// clickHouse is libchdb and the program that serves it.
func (l *layout) clickHouse() {
	library, err := embedded.FetchLibrary(l.ctx, "", nil)
	if err != nil {
		l.do(err)
		return
	}
	l.program(library, "clickhouse/usr/lib/libchdb.so")
	l.goProgram("./integration/images/clickhouse", "clickhouse/usr/bin/clickhouse")
	l.program(filepath.Join(l.dir, "clickhouse/usr/bin/clickhouse"), "") // its libraries
	l.do(os.Symlink("clickhouse", filepath.Join(l.dir, "clickhouse/usr/bin/clickhouse-client")))
	for _, name := range []string{"config.xml", "users.xml"} {
		l.copy(filepath.Join(l.source, "clickhouse", name), "clickhouse/etc/clickhouse-server/"+name)
	}
}

// installed copies a program of Prometheus's family and its tool, and tells whether they are there to copy.
func (l *layout) installed(program, tool string) bool {
	path, err := exec.LookPath(program)
	if err != nil {
		path, err = exec.LookPath("prometheus-" + program) // as Debian calls it
	}
	toolPath, toolErr := exec.LookPath(tool)
	if err := errors.Join(err, toolErr); err != nil {
		fmt.Fprintf(os.Stderr, "images: %s gets no image: %v\n", program, err)
		return false
	}
	l.program(path, filepath.Join(program, "bin", program))
	l.program(toolPath, filepath.Join(program, "bin", tool))
	if files := "/usr/share/prometheus"; l.exists(files) { // templates and pages that Debian keeps apart
		l.tree(files, filepath.Join(program, files))
	}
	l.do(os.MkdirAll(filepath.Join(l.dir, program, program), 0o755)) // its volume
	return true
}

// goBuild matches the command in deploy/Dockerfile that builds signindiag, which ends at the line's end.
var goBuild = regexp.MustCompile(`RUN (CGO_ENABLED=0 go build .*-o )/signindiag (\S+)`)

// golang is the stand-in for the Go image: it has signindiag as deploy/Dockerfile builds it, built by the Go of this machine.
func (l *layout) golang() {
	text, err := os.ReadFile(filepath.Join(l.root, "deploy", "Dockerfile"))
	l.do(err)
	command := goBuild.FindSubmatch(text)
	if command == nil {
		l.do(errors.New("deploy/Dockerfile holds no `RUN CGO_ENABLED=0 go build ... -o /signindiag PACKAGE`"))
		return
	}
	target := filepath.Join(l.dir, "go/built/signindiag")
	c := exec.CommandContext(l.ctx, "sh", "-c", fmt.Sprintf("%s'%s' %s", command[1], target, command[2]))
	c.Dir, c.Env, c.Stdout, c.Stderr = l.root, append(os.Environ(), "VERSION=test"), os.Stderr, os.Stderr
	if err := c.Run(); err != nil {
		l.do(fmt.Errorf("build signindiag: %w", err))
	}
	l.copy(filepath.Join(l.source, "go", "go"), "go/bin/go")
	for _, name := range []string{"cp", "mkdir"} {
		path, err := exec.LookPath(name)
		l.do(err)
		l.program(path, "go/bin/"+name)
	}
	l.copy("/etc/ssl/certs/ca-certificates.crt", "go/etc/ssl/certs/ca-certificates.crt")
}

// goProgram builds a package of this module, without cgo.
func (l *layout) goProgram(pkg, target string) {
	c := exec.CommandContext(l.ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(l.dir, target), pkg)
	c.Dir, c.Env, c.Stderr = l.root, append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	if err := c.Run(); err != nil {
		l.do(fmt.Errorf("build %s: %w", pkg, err))
	}
}

// program copies an executable or a shared library, unless target is empty, and the libraries that it needs into the base.
func (l *layout) program(path, target string) {
	if target != "" {
		l.copy(path, target)
	}
	out, _ := exec.CommandContext(l.ctx, "ldd", path).Output() // a static program is an error
	for _, library := range libraryFiles.FindAllStringSubmatch(string(out), -1) {
		if name := library[1]; !l.copied[name] && strings.HasPrefix(name, "/lib") || strings.HasPrefix(name, "/usr/lib") {
			l.copied[name] = true
			l.copy(name, "base"+name)
		}
	}
}

// tree copies a directory with what its links lead to, and the libraries that its programs need. What a Java runtime does not need
// to run stays behind, as do links that lead nowhere.
func (l *layout) tree(from, to string) {
	l.do(filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		switch name := filepath.Base(path); {
		case name == "jmods" || name == "demo" || name == "man" || name == "docs" || name == "legal" || name == "include" || name == "src.zip" || name == "ct.sym":
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir():
			return nil
		case info.IsDir(): // a link to a directory
			resolved, err := filepath.EvalSymlinks(path)
			if err != nil {
				return err
			}
			l.tree(resolved, filepath.Join(to, relative))
			return l.err
		case strings.HasSuffix(name, ".so") || info.Mode()&0o111 != 0:
			l.program(path, filepath.Join(to, relative))
		default:
			l.copy(path, filepath.Join(to, relative))
		}
		return l.err
	}))
}

// copy copies a file by a hard link where that is possible.
func (l *layout) copy(from, to string) {
	if l.err != nil {
		return
	}
	target := filepath.Join(l.dir, to)
	l.do(os.MkdirAll(filepath.Dir(target), 0o755))
	resolved, err := filepath.EvalSymlinks(from)
	l.do(err)
	if l.err != nil || os.Link(resolved, target) == nil {
		return
	}
	info, err := os.Stat(resolved)
	l.do(err)
	text, err := os.ReadFile(resolved)
	l.do(err)
	if l.err == nil {
		l.do(os.WriteFile(target, text, info.Mode().Perm()))
	}
}

func (l *layout) exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (l *layout) write(name, text string, mode os.FileMode) {
	path := filepath.Join(l.dir, name)
	l.do(os.MkdirAll(filepath.Dir(path), 0o755))
	l.do(os.WriteFile(path, []byte(text), mode))
}

// command runs a command and returns the line that it prints.
func command(ctx context.Context, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
