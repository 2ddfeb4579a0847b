package main

import (
	"context"
	"fmt"

	"github.com/signindiag/signindiag/sinks"
)

type migrateCommand struct{}

// Run brings the tables to the newest version.
func (migrateCommand) Run(ctx context.Context, std streams) error {
	c, err := loadConfig(ctx, nil)
	if err != nil {
		return err
	}
	if err := c.needServers(false, true); err != nil {
		return err
	}
	migrated, err := migrate(ctx, c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, migrated)
	return err
}

// migrate brings the tables to the newest version.
func migrate(ctx context.Context, c *config) (sinks.Migrated, error) {
	server, err := c.ClickHouse.server()
	if err != nil {
		return sinks.Migrated{}, err
	}
	conn, err := sinks.OpenWithoutDatabase(ctx, server)
	if err != nil {
		return sinks.Migrated{}, err
	}
	defer conn.Close()
	return sinks.Migrate(ctx, conn, c.ClickHouse.tables())
}
