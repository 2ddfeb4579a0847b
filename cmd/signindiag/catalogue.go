package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/signindiag/signindiag/schemas/catalogue"
)

// catalogueFlag is --catalogue of a command; it goes before the environment.
type catalogueFlag struct {
	Catalogue string `help:"Your changes of codes, texts and severities: a YAML file (default: SIGNINDIAG_CATALOGUE_FILE)." placeholder:"FILE"`
}

// configure reads the configuration with the flag in it.
func (f catalogueFlag) configure(ctx context.Context) (*config, error) {
	c, err := loadConfig(ctx, nil)
	if err != nil {
		return nil, err
	}
	if file := cmp.Or(f.Catalogue, c.Catalogue.File); file != "" {
		// Other commands find it from where they run.
		if c.Catalogue.File, err = filepath.Abs(file); err != nil {
			return nil, fmt.Errorf("find %s: %w", file, err)
		}
	}
	return c, nil
}

// load reads the configuration and returns its catalogue.
func (f catalogueFlag) load(ctx context.Context) (*catalogue.Catalogue, error) {
	c, err := f.configure(ctx)
	if err != nil {
		return nil, err
	}
	return c.Catalogue.load()
}

// load returns the embedded catalogue with the changes of the configured file. Errors name every line that is wrong.
func (c catalogueConfig) load() (*catalogue.Catalogue, error) {
	if c.File == "" {
		return catalogue.Load()
	}
	data, err := os.ReadFile(c.File)
	if err != nil {
		return nil, fmt.Errorf("read your changes of the catalogue (--catalogue or SIGNINDIAG_CATALOGUE_FILE): %w", err)
	}
	return catalogue.LoadOverlay(c.File, data)
}
