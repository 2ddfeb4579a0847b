package embedded

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

const (
	// defaultMemoryLimit is enough for look-ups and merges of some ten million rows, and leaves a laptop usable.
	defaultMemoryLimit = 4 << 30
	// markMacro is the macro by which a server tells that its configuration is ours.
	markMacro = "signindiag"
	// serverLogName is the log that the server writes and rotates by itself.
	serverLogName = "clickhouse.log"
)

// serverConfig is what changes from one start to the next.
type serverConfig struct {
	Dir               string
	TCPPort, HTTPPort int
	MemoryLimit       int64
	Mark              string
}

func (c serverConfig) QueryMemory() int64 { return c.MemoryLimit / 4 * 3 }

// serverTemplate is read by the library and by an installed server alike; the names are ClickHouse's own
// (https://clickhouse.com/docs/operations/server-configuration-parameters/settings). What it leaves out
// stays off: system log tables, other protocols, crash reports to the vendor. keep_alive_timeout is how
// long, in seconds, an idle HTTP connection may hold up a stop (default 30).
//
// A pool of 4 threads gives 8 merge tasks (background_merges_mutations_concurrency_ratio 2). The merge_tree
// settings below must not exceed that number: with their defaults (20, 8, 25, made for 32 tasks) a mutation would never start.
var serverTemplate = template.Must(template.New("config.xml").Funcs(template.FuncMap{"xml": escapeXML, "join": filepath.Join}).Parse(`<clickhouse>
    <path>{{join .Dir "server" | xml}}/</path>
    <tmp_path>{{join .Dir "server" "tmp" | xml}}/</tmp_path>
    <user_files_path>{{join .Dir "server" "user_files" | xml}}/</user_files_path>
    <format_schema_path>{{join .Dir "server" "format_schemas" | xml}}/</format_schema_path>
    <users_config>{{join .Dir "users.xml" | xml}}</users_config>
    <listen_host>127.0.0.1</listen_host>
    <tcp_port>{{.TCPPort}}</tcp_port>
    <http_port>{{.HTTPPort}}</http_port>
    <timezone>UTC</timezone>
    <macros><signindiag>{{.Mark}}</signindiag></macros>
    <max_server_memory_usage>{{.MemoryLimit}}</max_server_memory_usage>
    <max_server_memory_usage_to_ram_ratio>0.5</max_server_memory_usage_to_ram_ratio>
    <mark_cache_size>134217728</mark_cache_size>
    <uncompressed_cache_size>0</uncompressed_cache_size>
    <index_mark_cache_size>33554432</index_mark_cache_size>
    <index_uncompressed_cache_size>0</index_uncompressed_cache_size>
    <mmap_cache_size>100</mmap_cache_size>
    <compiled_expression_cache_size>33554432</compiled_expression_cache_size>
    <max_concurrent_queries>100</max_concurrent_queries>
    <background_pool_size>4</background_pool_size>
    <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
    <background_schedule_pool_size>8</background_schedule_pool_size>
    <background_common_pool_size>2</background_common_pool_size>
    <background_move_pool_size>1</background_move_pool_size>
    <background_fetches_pool_size>1</background_fetches_pool_size>
    <background_message_broker_schedule_pool_size>2</background_message_broker_schedule_pool_size>
    <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
    <merge_tree>
        <number_of_free_entries_in_pool_to_execute_mutation>2</number_of_free_entries_in_pool_to_execute_mutation>
        <number_of_free_entries_in_pool_to_lower_max_size_of_merge>2</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
        <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>2</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
    </merge_tree>
    <keep_alive_timeout>2</keep_alive_timeout>
    <shutdown_wait_unfinished>3</shutdown_wait_unfinished>
    <send_crash_reports><enabled>false</enabled></send_crash_reports>
    <core_dump><size_limit>0</size_limit></core_dump>
    <logger>
        <level>warning</level>
        <console>0</console>
        <log>{{join .Dir "clickhouse.log" | xml}}</log>
        <size>16M</size>
        <count>2</count>
    </logger>
</clickhouse>
`))

// usersTemplate defines the only user. poll_interval is how long, in seconds, a connection without a query
// takes to notice that the server stops (default 10); the server waits for them.
//
// There is no password, since only loopback listens, and clickhouse-local itself signs in without one; but everybody on this machine, and any page in a
// browser on it, can reach loopback. So the user has no right to read or write files, to reach other hosts
// or to run programs: only tables of the engine's own directory.
var usersTemplate = template.Must(template.New("users.xml").Parse(`<clickhouse>
    <profiles><default>
        <max_memory_usage>{{.QueryMemory}}</max_memory_usage>
        <log_queries>0</log_queries>
        <poll_interval>1</poll_interval>
    </default></profiles>
    <quotas><default></default></quotas>
    <users><default>
        <password></password>
        <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
        <profile>default</profile>
        <quota>default</quota>
        <grants>
            <query>GRANT SHOW, SELECT, INSERT, ALTER, CREATE, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, MOVE PARTITION BETWEEN SHARDS, KILL QUERY, SYSTEM, dictGet, INTROSPECTION, CLUSTER ON *.*</query>{{range .Engines}}
            <query>GRANT TABLE ENGINE ON {{.}}</query>{{end}}
        </grants>
    </default></users>
</clickhouse>
`))

// tableEngines are the engines of tables and databases that keep their data with the server.
var tableEngines = []string{
	"Atomic", "MergeTree", "ReplacingMergeTree", "SummingMergeTree", "AggregatingMergeTree", "CollapsingMergeTree",
	"VersionedCollapsingMergeTree", "CoalescingMergeTree", "Memory", "Null", "Log", "TinyLog", "StripeLog",
	"Buffer", "Set", "Join", "Merge", "Dictionary", "View", "MaterializedView",
}

// writeServerConfig writes config.xml and users.xml into c.Dir and returns the path of the former.
func writeServerConfig(c serverConfig) (string, error) {
	var server, users bytes.Buffer
	if err := serverTemplate.Execute(&server, c); err != nil {
		return "", fmt.Errorf("write the engine's configuration: %w", err)
	}
	data := struct {
		serverConfig
		Engines []string
	}{c, tableEngines}
	if err := usersTemplate.Execute(&users, data); err != nil {
		return "", fmt.Errorf("write the engine's users: %w", err)
	}
	path := filepath.Join(c.Dir, "config.xml")
	if err := os.WriteFile(path, server.Bytes(), 0o640); err != nil {
		return "", fmt.Errorf("write the engine's configuration: %w", err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "users.xml"), users.Bytes(), 0o640); err != nil {
		return "", fmt.Errorf("write the engine's users: %w", err)
	}
	return path, nil
}

func escapeXML(text string) (string, error) {
	var b strings.Builder
	err := xml.EscapeText(&b, []byte(text))
	return b.String(), err
}
