package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/detectors/settings"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// settingsFlag is the flag of commands that judge.
type settingsFlag struct {
	Settings string `help:"File of thresholds and what else holds for the tenants (default $$SIGNINDIAG_SETTINGS_FILE)." placeholder:"FILE" type:"path"`
}

// loadSettings reads the file that the flag or the configuration names, and notes its name in the configuration. Without a file it returns the defaults.
func (f settingsFlag) loadSettings(c *config) (*detectors.Settings, error) {
	if f.Settings != "" {
		c.Settings.File = f.Settings
	}
	return c.Settings.load()
}

// judgementFlags are the flags of commands that judge records here and now: by which catalogue and which settings.
type judgementFlags struct {
	catalogueFlag
	settingsFlag
}

// load reads the configuration and returns the catalogue and the settings that it and the flags name.
func (f judgementFlags) load(ctx context.Context) (*catalogue.Catalogue, *detectors.Settings, error) {
	c, err := f.configure(ctx)
	if err != nil {
		return nil, nil, err
	}
	cat, err := c.Catalogue.load()
	if err != nil {
		return nil, nil, err
	}
	settings, err := f.loadSettings(c)
	return cat, settings, err
}

func (c settingsConfig) load() (*detectors.Settings, error) {
	if c.File == "" {
		s := detectors.DefaultSettings()
		s.Edition = c.Edition
		return s, nil
	}
	text, err := os.ReadFile(c.File)
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w; expected the file that --settings or %sSETTINGS_FILE names", err, envPrefix)
	}
	s, err := settings.Load(c.File, text)
	if err != nil {
		return nil, fmt.Errorf("the settings are not valid:\n%w", err)
	}
	s.Edition = c.Edition
	return s, nil
}

// use puts settings in force for every state machine that is made from now on.
func (s *system) use(tenants *detectors.Settings) (fingerprint string) {
	s.settings.Store(tenants)
	fingerprint = fmt.Sprintf("%016x", tenants.Fingerprint())
	s.settingsInfo.Reset()
	s.settingsInfo.WithLabelValues(fingerprint).Set(1)
	return fingerprint
}

// reload reads the file of settings again. Where it is valid and says something else, the shards begin a new epoch with it;
// else what is in force stays.
func (s *system) reload() {
	next, err := s.config.Settings.load()
	if err != nil {
		s.log.Error("the settings in force stay", "error", err)
		return
	}
	if next.Fingerprint() == s.settings.Load().Fingerprint() {
		s.log.Info("the file of settings says nothing else than what is in force")
		return
	}
	fingerprint := s.use(next)
	s.pipeline.RestartShards()
	// A warning, since up shows no less: who asked for it wants to see it.
	s.log.Warn("other settings are in force: the shards begin a new epoch", "file", s.config.Settings.File, "fingerprint", fingerprint)
}

// reloadOnSignal reloads on SIGHUP until the function that it returns is called. Without a file SIGHUP keeps its meaning, which is
// the end. A SIGHUP because the terminal is gone still ends the system, by calling end.
func (s *system) reloadOnSignal(ctx context.Context, end func()) (stop func()) {
	if s.config.Settings.File == "" {
		return func() {}
	}
	onTerminal := func() bool { return term.IsTerminal(int(os.Stdin.Fd())) }
	had := onTerminal()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				if had && !onTerminal() {
					end()
					return
				}
				s.reload()
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		<-done
	}
}
