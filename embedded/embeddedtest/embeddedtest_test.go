package embeddedtest_test

import (
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/segmentio/kafka-go"

	"github.com/signindiag/signindiag/embedded/embeddedtest"
)

func TestMain(m *testing.M) { embeddedtest.Main(m) }

func TestDatabasesAreApart(t *testing.T) {
	one, two := embeddedtest.Database(t), embeddedtest.Database(t)
	if one == two {
		t.Fatalf("two databases of one name %s", one)
	}
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{embeddedtest.ClickHouse(t)}, Auth: clickhouse.Auth{Database: one}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, query := range []string{
		"CREATE TABLE only_here (n UInt64) ENGINE = MergeTree ORDER BY n",
		"INSERT INTO only_here SELECT number FROM numbers(7)",
	} {
		if err := conn.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	var tables []struct {
		Database string `ch:"database"`
	}
	if err := conn.Select(t.Context(), &tables, "SELECT database FROM system.tables WHERE name = 'only_here'"); err != nil {
		t.Fatal(err)
	}
	if len(tables) != 1 || tables[0].Database != one {
		t.Fatalf("table only_here is in %v, expected only %s", tables, one)
	}
}

func TestBrokersAreApart(t *testing.T) {
	one, two := embeddedtest.Broker(t), embeddedtest.Broker(t)
	conn, err := kafka.DialContext(t.Context(), "tcp", one)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.CreateTopics(kafka.TopicConfig{Topic: "raw", NumPartitions: 3, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
	other, err := kafka.DialContext(t.Context(), "tcp", two)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, broker := range []struct {
		conn *kafka.Conn
		want int
	}{{conn, 3}, {other, 0}} {
		partitions, err := broker.conn.ReadPartitions()
		if err != nil {
			t.Fatal(err)
		}
		if len(partitions) != broker.want {
			t.Errorf("%d partitions, expected %d", len(partitions), broker.want)
		}
	}
}
