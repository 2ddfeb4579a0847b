package main

import (
	"fmt"
	"io"
	"log/slog"
)

// newLogger returns a logger that writes to w as configured.
func newLogger(w io.Writer, c logConfig) (*slog.Logger, error) {
	level, err := c.level()
	if err != nil {
		return nil, fmt.Errorf("%sLOG_LEVEL: %w", envPrefix, err)
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}
