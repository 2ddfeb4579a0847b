package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/signindiag/signindiag/embedded"
)

type brokerCommand struct {
	Data    string `help:"Data directory." placeholder:"DIRECTORY" type:"path"`
	Address string `help:"host:port on loopback." placeholder:"ADDRESS"`
}

// Run runs the broker alone, prints its address, and ends with its standard input: bench keeps it in a process of its
// own, so that what it takes is not counted as ours.
func (c brokerCommand) Run(ctx context.Context, std streams) error {
	broker, err := embedded.StartBroker(embedded.BrokerConfig{DataDir: c.Data, Address: c.Address})
	if err != nil {
		return err
	}
	fmt.Fprintln(std.out, broker.Address())
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, std.in) // ends with the parent
		close(ended)
	}()
	select {
	case <-ctx.Done():
	case <-ended:
	}
	return errors.Join(broker.Close())
}
