package kafka

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signindiag/signindiag/integration/program"
	"github.com/signindiag/signindiag/integration/servers"
)

const (
	user     = "alice"
	password = "a secret of alice"
)

var mechanisms = []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"}

// way sends records through run and checks their rows.
func way(t *testing.T, k *servers.Kafka) {
	t.Helper()
	s := servers.NewSet(t, k, servers.SharedClickHouse(t))
	r := start(t, s)
	r.Ready()
	send(t, s, 0, 200)
	exactly(t, s, 200)
	r.Stop()
	hidden(t, r, password)
}

// hidden checks that the secret is nowhere in the output.
func hidden(t *testing.T, r *program.Process, secret string) {
	t.Helper()
	if strings.Contains(r.Text(), secret) {
		t.Errorf("the output holds the password:\n%s", r.Text())
	}
}

// wrong starts run on a Kafka that does not take it, and expects that the log and /readyz name the variable.
func wrong(t *testing.T, k servers.Kafka, variable string, environment ...string) *program.Process {
	t.Helper()
	r := start(t, servers.NewSet(t, &k, servers.SharedClickHouse(t)), environment...)
	r.WaitFor(`level=WARN.*` + variable)
	r.Unready(variable)
	hidden(t, r, password)
	return r
}

func TestTLSAndSASL(t *testing.T) {
	certificates := servers.NewCertificates(t)
	k := servers.StartApacheKafka(t, servers.KafkaOptions{Certificates: certificates, Users: map[string]string{user: password}})
	k.Username, k.Password = user, password
	for _, mechanism := range mechanisms {
		t.Run(mechanism, func(t *testing.T) {
			k := *k
			k.SASLMechanism = mechanism
			way(t, &k)
		})
	}
	for _, mechanism := range mechanisms {
		t.Run(mechanism+" with a wrong password", func(t *testing.T) {
			front := listen(t)
			front.serve(k.Brokers[0])
			k := *k
			k.Brokers, k.SASLMechanism, k.Password = []string{front.address()}, mechanism, "another"
			r := wrong(t, k, "SIGNINDIAG_KAFKA_SASL_PASSWORD")
			// Trying again is no storm: a pause of 5 s lies between attempts, so this bound is generous.
			before := front.accepted.Load()
			time.Sleep(10 * time.Second)
			if tried := front.accepted.Load() - before; tried < 1 || tried > 10 {
				t.Errorf("%d attempts in 10 s, want a few", tried)
			}
			r.Stop()
		})
	}
	t.Run("another authority", func(t *testing.T) {
		k := *k
		k.SASLMechanism, k.CAFile = "PLAIN", servers.NewCertificates(t).CAFile
		wrong(t, k, "SIGNINDIAG_KAFKA_TLS_CA_FILE").Stop()
	})
	t.Run("no TLS", func(t *testing.T) {
		k := *k
		k.SASLMechanism, k.TLS = "PLAIN", false
		wrong(t, k, "SIGNINDIAG_KAFKA_TLS and").Stop()
	})
	t.Run("no user", func(t *testing.T) {
		k := *k
		k.Username, k.Password = "", ""
		r := start(t, servers.NewSet(t, &k, servers.SharedClickHouse(t)))
		r.WaitFor(`level=WARN.*make sure of topic`)
		r.Unready("make sure of topic")
		r.Stop()
	})
	t.Run("certificates that are none", func(t *testing.T) {
		k := *k
		k.SASLMechanism, k.CAFile = "PLAIN", filepath.Join(t.TempDir(), "empty.pem")
		if err := os.WriteFile(k.CAFile, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		r := start(t, servers.NewSet(t, &k, servers.SharedClickHouse(t)))
		if code, _ := r.Ended(); code != 1 || !strings.Contains(r.Text(), "SIGNINDIAG_KAFKA_TLS_CA_FILE") {
			t.Errorf("exit code %d and\n%s", code, r.Text())
		}
	})
}

func TestSASLWithoutTLS(t *testing.T) {
	k := servers.StartApacheKafka(t, servers.KafkaOptions{Users: map[string]string{user: password}})
	k.Username, k.Password = user, password
	for _, mechanism := range mechanisms {
		t.Run(mechanism, func(t *testing.T) {
			k := *k
			k.SASLMechanism = mechanism
			way(t, &k)
		})
	}
	t.Run("TLS where there is none", func(t *testing.T) {
		k := *k
		k.SASLMechanism, k.TLS = "PLAIN", true
		wrong(t, k, "SIGNINDIAG_KAFKA_TLS").Stop()
	})
}

func TestClientCertificates(t *testing.T) {
	certificates := servers.NewCertificates(t)
	k := servers.StartApacheKafka(t, servers.KafkaOptions{Certificates: certificates, ClientCertificates: true})
	t.Run("shown", func(t *testing.T) {
		k := *k
		k.CertFile, k.KeyFile = certificates.ClientCertFile, certificates.ClientKeyFile
		way(t, &k)
	})
	t.Run("not shown", func(t *testing.T) { wrong(t, *k, "SIGNINDIAG_KAFKA_TLS_CERT_FILE").Stop() })
	t.Run("of another authority", func(t *testing.T) {
		k, other := *k, servers.NewCertificates(t)
		k.CertFile, k.KeyFile = other.ClientCertFile, other.ClientKeyFile
		wrong(t, k, "SIGNINDIAG_KAFKA_TLS_CERT_FILE").Stop()
	})
}
