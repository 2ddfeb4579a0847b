// Command clickhouse is the one program of the image that stands in for clickhouse/clickhouse-server where that cannot be
// pulled: ClickHouse's engine out of libchdb.so, as a server. Called clickhouse-client it asks a server one query.
//
// It takes what our tests and docker-compose.yml use of the official image: CLICKHOUSE_USER, CLICKHOUSE_PASSWORD and CLICKHOUSE_DB,
// files in config.d and users.d, ports 8123 and 9000, data in /var/lib/clickhouse. Unlike there, everything runs as root, the
// engine's own session belongs to the user default, which no network reaches, and other variables are ignored.
package main

import (
	"context"
	"encoding/xml"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signindiag/signindiag/embedded"
)

const (
	library = "/usr/lib/libchdb.so"
	config  = "/etc/clickhouse-server/config.xml"
	users   = "/etc/clickhouse-server/users.d/default-user.xml"
	address = "127.0.0.1:9000"
	// stopTimeout is how long the engine may take to stop cleanly; `docker stop` kills after ten seconds.
	stopTimeout = 8 * time.Second
	// restartPause keeps an engine that cannot start from being started without a break.
	restartPause = 200 * time.Millisecond
)

func main() {
	var err error
	switch {
	case filepath.Base(os.Args[0]) == "clickhouse-client":
		err = client(os.Args[1:])
	case len(os.Args) > 1 && os.Args[1] == "engine":
		err = engine()
	default:
		err = serve()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

// serve is the container's first process: it starts the engine and, when asked to, stops it. In between it starts an engine that
// ended again: libchdb, unlike a server, aborts when a client's handshake fails, as with a wrong password.
func serve() error {
	asked, end := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer end()
	user, password := os.Getenv("CLICKHOUSE_USER"), os.Getenv("CLICKHOUSE_PASSWORD")
	if user == "" || user == "default" {
		return fmt.Errorf("CLICKHOUSE_USER=%s: expected a name other than default, which is the engine's own user here", user)
	}
	if err := writeUser(user, password); err != nil {
		return err
	}
	for {
		engine := exec.Command("/proc/self/exe", "engine")
		engine.Stdout, engine.Stderr = os.Stdout, os.Stderr
		if err := engine.Start(); err != nil {
			return fmt.Errorf("start the engine: %w", err)
		}
		ended := make(chan error, 1)
		go func() { ended <- engine.Wait() }()
		select {
		case err := <-ended:
			fmt.Fprintf(os.Stderr, "clickhouse: the engine ended without being asked to and is started again: %v\n", err)
			time.Sleep(restartPause)
		case <-asked.Done():
			return stop(user, password, ended)
		}
	}
}

// stop stops the engine cleanly.
func stop(user, password string, ended <-chan error) error {
	// The query that keeps it serving is cancelled like any other.
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{address}, Auth: clickhouse.Auth{Username: user, Password: password}, DialTimeout: time.Second})
	if err != nil {
		return err
	}
	if err := conn.Exec(ctx, "KILL QUERY WHERE 1 ASYNC"); err != nil {
		fmt.Fprintf(os.Stderr, "stop the engine: %v\n", err)
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the engine did not stop within %s", stopTimeout)
	}
}

// writeUser writes the user that the variables name.
func writeUser(name, password string) error {
	escape := func(text string) string {
		var b strings.Builder
		_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
		return b.String()
	}
	text := fmt.Sprintf("<clickhouse><users><%[1]s><password>%[2]s</password><networks><ip>::/0</ip></networks>"+
		"<profile>default</profile><quota>default</quota></%[1]s></users></clickhouse>\n", escape(name), escape(password))
	if err := os.MkdirAll(filepath.Dir(users), 0o755); err != nil {
		return err
	}
	return os.WriteFile(users, []byte(text), 0o600)
}

// engine runs clickhouse-local as a server until its last query is cancelled.
func engine() error {
	// The variables are the server's; clickhouse-local would read them as a client's.
	database := os.Getenv("CLICKHOUSE_DB")
	for _, name := range []string{"CLICKHOUSE_USER", "CLICKHOUSE_PASSWORD", "CLICKHOUSE_DB"} {
		os.Unsetenv(name)
	}
	queries := "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; SELECT sleepEachRow(0.25) FROM system.numbers FORMAT Null SETTINGS " +
		"max_block_size = 1, max_threads = 1, function_sleep_max_microseconds_per_block = 0, max_execution_time = 0"
	if database != "" {
		queries = "CREATE DATABASE IF NOT EXISTS `" + strings.ReplaceAll(database, "`", "``") + "`; " + queries
	}
	return embedded.RunLibrary(library, "clickhouse", "--config-file="+config, "--log-level=warning", "--query="+queries)
}

// client asks one query and prints its rows, tab separated.
func client(args []string) error {
	flags := flag.NewFlagSet("clickhouse-client", flag.ExitOnError)
	host, user, password := flags.String("host", "127.0.0.1", ""), flags.String("user", "default", ""), flags.String("password", "", "")
	database, query := flags.String("database", "", ""), flags.String("query", "SELECT 1", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{net.JoinHostPort(*host, "9000")}, DialTimeout: 2 * time.Second,
		Auth: clickhouse.Auth{Username: *user, Password: *password, Database: *database}})
	if err != nil {
		return err
	}
	defer conn.Close()
	rows, err := conn.Query(context.Background(), *query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var values []any
		for _, column := range rows.ColumnTypes() {
			values = append(values, reflect.New(column.ScanType()).Interface())
		}
		if err := rows.Scan(values...); err != nil {
			return err
		}
		var texts []string
		for _, value := range values {
			texts = append(texts, fmt.Sprint(reflect.ValueOf(value).Elem().Interface()))
		}
		fmt.Println(strings.Join(texts, "\t"))
	}
	return rows.Err()
}
