package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/lookup"
	"github.com/signindiag/signindiag/schemas/catalogue"
	"github.com/signindiag/signindiag/sinks"
)

// storeFlags say where a command that reads ClickHouse finds it.
type storeFlags struct {
	Data   string `help:"Data directory of a running signindiag up (default: the one that runs, or SIGNINDIAG_CLICKHOUSE_ADDRESSES)." placeholder:"DIRECTORY" type:"path"`
	Format string `enum:"text,json" default:"text" help:"text for people, json for programs."`
}

// opened is a store with what is needed to show its answers.
type opened struct {
	store    *lookup.Store
	renderer detectors.Renderer
	conn     driver.Conn
	server   sinks.Server
	// rawTopics are those of the configuration, or of the running up.
	rawTopics      []string
	rawIncarnation uint32
	// settings is the file of settings of the running up, "" where none is known.
	settings string
}

func (o opened) close() { _ = o.conn.Close() } // nothing was written that could be lost

// open connects to the ClickHouse of the configuration or, where none is configured, to that of the running
// `signindiag up`.
func (f storeFlags) open(ctx context.Context) (opened, error) {
	c, err := loadConfig(ctx, nil)
	if err != nil {
		return opened{}, err
	}
	server, err := c.ClickHouse.server()
	if err != nil {
		return opened{}, err
	}
	if f.Data != "" || len(server.Address) == 0 {
		running, err := readEndpoints(f.Data)
		if errors.Is(err, errNotRunning) {
			return opened{}, fmt.Errorf("%w: start it, name its data directory with --data, or set SIGNINDIAG_CLICKHOUSE_ADDRESSES", err)
		}
		if err != nil {
			return opened{}, err
		}
		server = sinks.Server{Address: []string{running.ClickHouse}, Database: running.Database}
		c.Catalogue.File, c.Settings.File, c.Kafka.RawTopics = running.Catalogue, running.Settings, []string{running.RawTopic}
	}
	cat, err := c.Catalogue.load()
	if err != nil {
		return opened{}, err
	}
	conn, err := sinks.Open(ctx, server)
	if err != nil {
		return opened{}, err
	}
	store := lookup.NewStore(conn, cat, nil)
	return opened{store: store, renderer: detectors.Renderer{Catalogue: cat}, conn: conn, server: server,
		rawTopics: c.Kafka.RawTopics, rawIncarnation: c.Kafka.RawIncarnation, settings: c.Settings.File}, nil
}

// printJSON prints v indented.
func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// equalID compares two ids as people copy them: without regard to case, braces and blanks.
func equalID(a, b string) bool {
	return strings.EqualFold(strings.Trim(a, "{} \t"), strings.Trim(b, "{} \t"))
}

type lookupCommand struct {
	ID string `arg:"" help:"correlationId or requestId."`
	storeFlags
}

// Run prints what is known of the id. An unknown id is a failure that says how fresh the data is.
func (c lookupCommand) Run(ctx context.Context, std streams) error {
	o, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer o.close()
	result, err := o.store.Find(ctx, c.ID)
	if err != nil {
		return err
	}
	if c.Format == "json" {
		return printJSON(std.out, lookup.NewFindAnswer(result, o.renderer, catalogue.AllCapabilities))
	}
	return lookup.WriteResult(std.out, result, o.renderer, catalogue.AllCapabilities)
}

type searchCommand struct {
	User    string `help:"userPrincipalName or user id." placeholder:"USER"`
	App     string `help:"Application, by name or part of it." placeholder:"APP"`
	IP      string `name:"ip" help:"Address." placeholder:"ADDRESS"`
	Around  string `help:"Sign-ins within 48 hours of this time (RFC 3339 or a date)." placeholder:"TIME"`
	Flagged bool   `help:"Only sign-ins that the user flagged for review."`
	Limit   int    `default:"50" help:"At most this many."`
	Cursor  string `help:"Continue an earlier search." placeholder:"CURSOR"`
	storeFlags
}

// Run prints the sign-ins that match, newest first.
func (c searchCommand) Run(ctx context.Context, std streams) error {
	query := lookup.SearchQuery{User: c.User, App: c.App, Address: c.IP, Flagged: c.Flagged, Limit: c.Limit, Cursor: c.Cursor}
	if c.Around != "" {
		var err error
		if query.Around, err = lookup.ParseTime(c.Around); err != nil {
			return err
		}
	}
	o, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer o.close()
	page, err := o.store.Search(ctx, query)
	if err != nil {
		return err
	}
	if c.Format == "json" {
		return printJSON(std.out, lookup.NewSearchAnswer(page, o.renderer, catalogue.AllCapabilities))
	}
	return lookup.WriteSearch(std.out, page, o.renderer, catalogue.AllCapabilities)
}

type incidentCommand struct {
	ID    string `arg:"" optional:"" help:"Show this incident with its records."`
	Kind  string `help:"Only incidents of this kind, such as repeated_failures." placeholder:"KIND"`
	User  string `help:"Only incidents of this user." placeholder:"USER"`
	Limit int    `default:"50" help:"At most this many."`
	storeFlags
}

// Run prints incidents, newest first, or one of them.
func (c incidentCommand) Run(ctx context.Context, std streams) error {
	o, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer o.close()
	if c.ID != "" {
		detail, err := o.store.Incident(ctx, c.ID)
		if err != nil {
			return err
		}
		if c.Format == "json" {
			return printJSON(std.out, lookup.NewIncidentAnswer(detail, o.renderer, catalogue.AllCapabilities))
		}
		return lookup.WriteIncident(std.out, detail, o.renderer, catalogue.AllCapabilities)
	}
	page, err := o.store.Incidents(ctx, lookup.IncidentFilter{Kind: c.Kind, User: c.User, Limit: c.Limit})
	if err != nil {
		return err
	}
	if c.Format == "json" {
		return printJSON(std.out, lookup.NewIncidentsAnswer(page, o.renderer, catalogue.AllCapabilities))
	}
	return lookup.WriteIncidents(std.out, page, o.renderer, catalogue.AllCapabilities)
}
