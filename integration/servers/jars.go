package servers

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/signindiag/signindiag/embedded"
)

// pom names Apache Kafka and its version.
//
//go:embed kafka/pom.xml
var pom []byte

const (
	// copyJars is the goal that copies what the pom names.
	copyJars = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
	// jarsTimeout bounds fetching 44 MB, once per machine.
	jarsTimeout = 5 * time.Minute
	// oldestJava is what Kafka's brokers need since 4.0.
	oldestJava = 17
)

// apacheKafka is what is needed to run Apache Kafka.
type apacheKafka struct{ java, classPath string }

// findApacheKafka finds java and the jars, which Maven brings on first need. Its error says what is missing.
var findApacheKafka = sync.OnceValues(func() (*apacheKafka, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("java is not installed: Apache Kafka needs Java %d or newer", oldestJava)
	}
	out, err := exec.Command(java, "-version").CombinedOutput()
	version := regexp.MustCompile(`version "(\d+)`).FindSubmatch(out)
	if err != nil || version == nil {
		return nil, fmt.Errorf("%s -version does not tell its version: %v: %s", java, err, out)
	}
	if n, _ := strconv.Atoi(string(version[1])); n < oldestJava {
		return nil, fmt.Errorf("%s is Java %d: Apache Kafka needs Java %d or newer", java, n, oldestJava)
	}
	jars, err := KafkaJars()
	if err != nil {
		return nil, err
	}
	return &apacheKafka{java: java, classPath: filepath.Join(jars, "*")}, nil
})

// KafkaJars returns the directory with the jars that the pom names, in the user's cache directory. Another pom is another
// directory.
func KafkaJars() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory for Apache Kafka's jars: %w", err)
	}
	dir := filepath.Join(cache, "signindiag", fmt.Sprintf("apache-kafka-%x", sha256.Sum256(pom))[:29])
	jars := filepath.Join(dir, "jars")
	if _, err := os.Stat(jars); err == nil {
		return jars, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), jarsTimeout)
	defer cancel()
	// Several test binaries may want them at once, and Maven's repository is not made for that.
	lock, err := waitForDirectory(ctx, dir)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if _, err := os.Stat(jars); err == nil {
		return jars, nil
	}
	maven, err := exec.LookPath("mvn")
	if err != nil {
		return "", errors.New("mvn is not installed: Maven fetches Apache Kafka's jars once (Debian's package maven)")
	}
	half := filepath.Join(dir, "half")
	if err := os.RemoveAll(half); err != nil {
		return "", err
	}
	file := filepath.Join(dir, "pom.xml")
	if err := os.WriteFile(file, pom, 0o600); err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "servers: fetching Apache Kafka's jars with Maven into %s, once\n", jars)
	var output bytes.Buffer
	fetch := exec.CommandContext(ctx, maven, "--batch-mode", "--no-transfer-progress", "--file", file, copyJars,
		"-DincludeScope=runtime", "-DoutputDirectory="+half)
	fetch.Stdout, fetch.Stderr = &output, &output
	fetch.WaitDelay = 5 * time.Second // mvn is a script above a java that has our pipe
	fetch.Cancel = func() error { return killGroup(fetch) }
	fetch.SysProcAttr = childAttributes()
	begun := time.Now()
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(15 * time.Second):
				entries, _ := os.ReadDir(half)
				fmt.Fprintf(os.Stderr, "servers: %s, %d jars\n", time.Since(begun).Round(time.Second), len(entries))
			}
		}
	}()
	err = fetch.Run()
	close(done)
	if err != nil {
		return "", fmt.Errorf("Maven does not fetch Apache Kafka's jars (is a repository reachable?): %w\n%s", err, mavenErrors(output.String()))
	}
	if err := os.Rename(half, jars); err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "servers: Apache Kafka's jars are there after %s\n", time.Since(begun).Round(time.Second))
	return jars, nil
}

// mavenErrors returns the lines that tell what went wrong, at most 2 000 bytes.
func mavenErrors(output string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		if strings.Contains(line, "ERROR") && b.Len() < 2000 {
			b.WriteString(line)
		}
	}
	return b.String()
}

// waitForDirectory makes the directory and takes it for this process alone.
func waitForDirectory(ctx context.Context, dir string) (*embedded.DataLock, error) {
	for {
		lock, err := embedded.LockData(dir)
		var locked *embedded.LockedError
		if err == nil || !errors.As(err, &locked) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another process to fetch Apache Kafka's jars: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
