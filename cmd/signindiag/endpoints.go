package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// endpoints are the addresses of a running `signindiag up`. It writes them into its data directory so
// that other commands on this machine find it without being told.
type endpoints struct {
	PID        int    `json:"pid"`
	Kafka      string `json:"kafka"`
	RawTopic   string `json:"raw_topic"`
	ClickHouse string `json:"clickhouse"`
	Database   string `json:"database"`
	HTTP       string `json:"http"`
	// Snapshots is the directory of the shards' states.
	Snapshots string `json:"snapshots"`
	// Catalogue is the file of changes of the catalogue, "" for none: texts are rendered by who shows them.
	Catalogue string `json:"catalogue,omitempty"`
	// Settings is the file of settings, "" for none.
	Settings string `json:"settings,omitempty"`
}

// endpointsFile is the file's name inside the data directory.
const endpointsFile = "endpoints.json"

// defaultDataDir is where `signindiag up` keeps its data unless told otherwise; the demo has a directory
// of its own so that made-up records never stand beside real ones.
func defaultDataDir(demo bool) (string, error) {
	base := os.Getenv("XDG_DATA_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find a directory for the data (name one with --data): %w", err)
		}
		base = filepath.Join(home, ".local", "share")
	}
	name := "local"
	if demo {
		name = "demo"
	}
	return filepath.Join(base, "signindiag", name), nil
}

// writeEndpoints stores e in dir. Readers never see a part of it.
func writeEndpoints(dir string, e endpoints) error {
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the endpoints: %w", err)
	}
	path := filepath.Join(dir, endpointsFile)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the endpoints: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write the endpoints: %w", err)
	}
	return nil
}

// removeEndpoints forgets the endpoints in dir; a directory without any is fine.
func removeEndpoints(dir string) error {
	if err := os.Remove(filepath.Join(dir, endpointsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the endpoints: %w", err)
	}
	return nil
}

// errNotRunning means that no `signindiag up` runs on the data directory.
var errNotRunning = errors.New("no `signindiag up` is running")

// readEndpoints returns the endpoints of a `signindiag up` that is alive on dir. With an empty dir it
// looks into the default directories. The error is errNotRunning where there is none.
func readEndpoints(dir string) (endpoints, error) {
	dirs := []string{dir}
	if dir == "" {
		dirs = dirs[:0]
		for _, demo := range []bool{false, true} {
			d, err := defaultDataDir(demo)
			if err != nil {
				return endpoints{}, err
			}
			dirs = append(dirs, d)
		}
	}
	for _, d := range dirs {
		text, err := os.ReadFile(filepath.Join(d, endpointsFile))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return endpoints{}, fmt.Errorf("read the endpoints: %w", err)
		}
		var e endpoints
		if err := json.Unmarshal(text, &e); err != nil {
			return endpoints{}, fmt.Errorf("read the endpoints in %s: %w", d, err)
		}
		// A process that was killed leaves its file behind.
		if processAlive(e.PID) {
			return e, nil
		}
	}
	if dir != "" {
		return endpoints{}, fmt.Errorf("%w on %s", errNotRunning, dir)
	}
	return endpoints{}, errNotRunning
}

// use points the configuration at a running `signindiag up`.
func (e endpoints) use(c *config) {
	c.embed(e.Kafka, e.ClickHouse, e.Snapshots)
	if c.Kafka.RawTopics[0] != e.RawTopic {
		c.Kafka.RawTopics = []string{e.RawTopic}
	}
	c.ClickHouse.Database = e.Database
	c.Catalogue.File, c.Settings.File = e.Catalogue, e.Settings
}
