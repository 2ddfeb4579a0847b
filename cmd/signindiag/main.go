// Command signindiag diagnoses Microsoft Entra ID sign-ins while they happen. This package holds the
// command line and the wiring; the work is done by the packages that it wires.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/signindiag/signindiag/embedded"
)

// cli is the command line. Every command is a struct with a Run method.
type cli struct {
	Up         upCommand         `cmd:"" help:"Start everything on this machine: Kafka protocol broker, ClickHouse, pipeline, API and page."`
	Run        runCommand        `cmd:"" help:"Run the pipeline and the API on external Kafka and ClickHouse."`
	Serve      serveCommand      `cmd:"" help:"Serve the API and the page only, on an external ClickHouse."`
	Explain    explainCommand    `cmd:"" help:"Diagnose exported records here and now, without any server."`
	Import     importCommand     `cmd:"" help:"Send exported logs to the raw topic."`
	Lookup     lookupCommand     `cmd:"" help:"Look up a sign-in by correlationId or requestId."`
	Search     searchCommand     `cmd:"" help:"Search sign-ins by user, application, address and time."`
	Incident   incidentCommand   `cmd:"" name:"incidents" help:"List incidents, or show one."`
	Quarantine quarantineCommand `cmd:"" help:"Records that left the way: list them, show one, replay them."`
	Tune       tuneCommand       `cmd:"" help:"Incidents gained and lost by other thresholds."`
	Codes      codesCommand      `cmd:"" help:"Explain an error code, or list codes and scenarios."`
	Scenario   scenarioCommand   `cmd:"" help:"Run scenario files: sign-ins in, expected diagnoses out."`
	Generate   generateCommand   `cmd:"" help:"Generate realistic sign-in records."`
	Bench      benchCommand      `cmd:"" help:"Measure the whole way on the embedded servers."`
	Verify     verifyCommand     `cmd:"" help:"Prove that nothing was lost, repeated or altered; exit code 0 only when it is so."`
	Migrate    migrateCommand    `cmd:"" help:"Create or update the tables in ClickHouse."`
	Health     healthCommand     `cmd:"" help:"Ask a running signindiag whether it is ready; exit code 0 or 1."`
	Version    versionCommand    `cmd:"" help:"Print the version."`
	Broker     brokerCommand     `cmd:"" hidden:"" name:"embedded-broker" help:"Run the embedded broker alone."`
}

// streams are the standard streams of a command, so that tests run commands in process.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

func main() {
	// A process that was re-executed as the embedded ClickHouse never returns from this call.
	embedded.ClickHouseMain()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once: a stop that was not finished is a crash, which costs repeats and loses nothing.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// errFailed ends a command with exit code 1 without a further message: what was wrong has been said.
var errFailed = errors.New("failed")

// run parses the arguments and runs one command. It returns the exit code: 0, 1 for a failure,
// 2 for a wrong command line.
func run(ctx context.Context, args []string, std streams) int {
	var c cli
	exit := -1
	parser, err := kong.New(&c,
		kong.Name("signindiag"),
		kong.Description("Every Microsoft Entra sign-in, diagnosed while it happens."),
		kong.UsageOnError(),
		kong.Writers(std.out, std.err),
		kong.Exit(func(code int) { exit = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(std),
	)
	if err != nil {
		fmt.Fprintf(std.err, "signindiag: %v\n", err)
		return 2
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if exit >= 0 { // --help
		return exit
	}
	if err != nil {
		fmt.Fprintf(std.err, "signindiag: %v\nSee signindiag --help.\n", err)
		return 2
	}
	if err := k.Run(); err != nil {
		if !errors.Is(err, errFailed) {
			fmt.Fprintf(std.err, "signindiag: %v\n", err)
		}
		return 1
	}
	return 0
}
