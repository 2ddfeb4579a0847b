package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// healthTimeout bounds the question: a container's health check has a few seconds.
const healthTimeout = 4 * time.Second

type healthCommand struct {
	Address string `help:"host:port of the API (default: SIGNINDIAG_HTTP_ADDRESS)." placeholder:"ADDRESS"`
}

// Run asks /readyz and prints its answer.
func (c healthCommand) Run(ctx context.Context, std streams) error {
	address := c.Address
	if address == "" {
		configuration, err := loadConfig(ctx, nil)
		if err != nil {
			return err
		}
		address = configuration.HTTP.Address
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q: expected host:port: %w", address, err)
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("ask for readiness: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("no signindiag answers at %s: %w", address, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", address, err)
	}
	fmt.Fprintln(std.out, strings.TrimSpace(string(text)))
	if response.StatusCode != http.StatusOK {
		return errFailed
	}
	return nil
}
