package servers

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"
)

// The servers of the backend "endpoints" are named by these variables; what is like a variable of signindiag means the same.
const (
	kafkaBrokersVariable        = "SIGNINDIAG_TEST_KAFKA_BROKERS"
	clickHouseAddressesVariable = "SIGNINDIAG_TEST_CLICKHOUSE_ADDRESSES"
)

func init() { register(backend{name: "endpoints", shared: openEndpoints}) }

func openEndpoints(t testing.TB) *Set {
	brokers, addresses := list(os.Getenv(kafkaBrokersVariable)), list(os.Getenv(clickHouseAddressesVariable))
	if len(brokers) == 0 || len(addresses) == 0 {
		SkipOrFail(t, "endpoints", fmt.Errorf("%s and %s do not name servers", kafkaBrokersVariable, clickHouseAddressesVariable))
	}
	variable := func(name string) string { return os.Getenv("SIGNINDIAG_TEST_" + name) }
	kafka := &Kafka{
		Brokers: brokers, Replication: -1,
		TLS: variable("KAFKA_TLS") == "true", CAFile: variable("KAFKA_TLS_CA_FILE"),
		CertFile: variable("KAFKA_TLS_CERT_FILE"), KeyFile: variable("KAFKA_TLS_KEY_FILE"),
		SASLMechanism: variable("KAFKA_SASL_MECHANISM"), Username: variable("KAFKA_SASL_USERNAME"), Password: variable("KAFKA_SASL_PASSWORD"),
	}
	c := &ClickHouse{
		Addresses: addresses, Username: variable("CLICKHOUSE_USERNAME"), Password: variable("CLICKHOUSE_PASSWORD"),
		TLS: variable("CLICKHOUSE_TLS") == "true", CAFile: variable("CLICKHOUSE_TLS_CA_FILE"),
		Database: fmt.Sprintf("signindiag_test_%d_%d", time.Now().Unix(), names.Add(1)),
	}
	if c.Username == "" {
		c.Username = "default"
	}
	createDatabase(t, c)
	s := NewSet(t, kafka, c)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		kafka.DeleteTopics(ctx, t, s.RawTopic, s.EntitiesTopic)
		conn := c.connect(t, "")
		defer conn.Close()
		if err := conn.Exec(ctx, "DROP DATABASE "+c.Database+" SYNC"); err != nil {
			t.Errorf("drop the database of the test: %v", err)
		}
	})
	return s
}
