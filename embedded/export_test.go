package embedded

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// What the tests of package embedded_test need from inside.
var (
	LoopbackAddress  = loopbackAddress
	ParseVersion     = parseVersion
	InstalledProgram = installedProgram
	ChoosePorts      = choosePorts
	ProcessAlive     = processAlive
)

const (
	LibraryVersion = libraryVersion
	StopTimeout    = stopTimeout
)

// WithoutDeathSignal leaves out the kernel's signal to the child at its parent's death.
func WithoutDeathSignal(cfg ClickHouseConfig) ClickHouseConfig {
	cfg.leaveDeathSignalOut = true
	return cfg
}

// WaitForLock waits until the lock at path is free, whoever holds it.
func WaitForLock(ctx context.Context, path string) error {
	for {
		lock, err := lockFile(path)
		if err == nil {
			lock.release()
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// WriteServerConfig writes the configuration of a server with fixed values.
func WriteServerConfig(dir string) (string, error) {
	return writeServerConfig(serverConfig{Dir: dir, TCPPort: 9000, HTTPPort: 8123, MemoryLimit: 4 << 30, Mark: "MARK"})
}

// WriteEngineVersion notes a version as the one that wrote the data.
func WriteEngineVersion(dir, version string) { writeEngineVersion(dir, version) }

// LibraryPackage is the npm package of this platform.
func LibraryPackage(platform string) (name, integrity string, size int64) {
	p := libraryPackages[platform]
	return p.name, p.integrity, p.size
}

// RunAsProgram behaves like an installed clickhouse program that is given the configuration: the engine
// comes from the library, SIGTERM stops it. It returns when the engine ends by itself.
func RunAsProgram(library, config, address string) error {
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	asked := make(chan struct{})
	go func() {
		<-terminated
		close(asked)
	}()
	err := runLibrary(childSpecification{Library: library, Config: config, Address: address, Engine: address, Mark: "program"}, asked)
	select {
	case <-asked:
		return nil
	default:
		return err
	}
}
