package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/sinks"
)

// countingSink counts rows and stores positions at once.
type countingSink struct {
	rows    atomic.Int64
	durable func([]sinks.Position)
}

func (s *countingSink) Write(_ context.Context, rows *detectors.Rows, pos sinks.Position) error {
	if rows != nil {
		s.rows.Add(int64(len(rows.Diagnoses)))
	}
	return nil
}
func (s *countingSink) Flush(context.Context) error { return nil }
func (s *countingSink) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
func (s *countingSink) Ready() error { return nil }

// bigSignIn returns a made-up record of about 5 KB in the form of the diagnostic export.
func bigSignIn(dst []byte, n int) []byte {
	id := func(kind string) string { return fmt.Sprintf("%08x-%s-4000-8000-%012x", n*2654435761, kind, n*40503) }
	codes := []int{0, 0, 0, 0, 0, 0, 0, 50126, 50074, 53003}
	code := codes[n%len(codes)]
	b := bytes.NewBuffer(dst)
	fmt.Fprintf(b, `{"time":"2026-03-02T%02d:%02d:%02d.1234567Z","resourceId":"/tenants/3f1c2b7e-0000-4000-8000-00000000aaaa/providers/Microsoft.aadiam","operationName":"Sign-in activity","operationVersion":"1.0",`,
		n/3600%24, n/60%60, n%60)
	fmt.Fprintf(b, `"category":"SignInLogs","tenantId":"3f1c2b7e-0000-4000-8000-00000000aaaa","resultType":"%d","resultSignature":"None","durationMs":0,"callerIpAddress":"198.51.100.%d","correlationId":"%s","identity":"User %d","Level":4,"location":"NO",`,
		code, n%250, id("2222"), n%20000)
	fmt.Fprintf(b, `"properties":{"id":"%s","createdDateTime":"2026-03-02T%02d:%02d:%02d.1234567+00:00","userDisplayName":"User %d","userPrincipalName":"user%d@example.com","userId":"%08x-3333-4000-8000-000000000001",`,
		id("1111"), n/3600%24, n/60%60, n%60, n%20000, n%20000, n%20000)
	fmt.Fprintf(b, `"appId":"%08x-4444-4000-8000-000000000002","appDisplayName":"Example Application %d","ipAddress":"198.51.100.%d","status":{"errorCode":%d,"failureReason":"Other.","additionalDetails":"MFA requirement satisfied by claim in the token"},`, n%100, n%100, n%250, code)
	fmt.Fprintf(b, `"clientAppUsed":"Browser","userAgent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36","deviceDetail":{"deviceId":"%08x-5555-4000-8000-000000000003","displayName":"DESKTOP-%05d","operatingSystem":"Windows10","browser":"Chrome 126.0.0","isCompliant":true,"isManaged":true,"trustType":"Azure AD joined"},`, n%20000, n%20000)
	b.WriteString(`"location":{"city":"Oslo","state":"Oslo","countryOrRegion":"NO","geoCoordinates":{"latitude":59.91,"longitude":10.75}},"mfaDetail":{},"correlationId":"`)
	b.WriteString(id("2222"))
	b.WriteString(`","conditionalAccessStatus":"success","appliedConditionalAccessPolicies":[`)
	for i := range 6 {
		if i > 0 {
			b.WriteByte(',')
		}
		result := "notApplied"
		if i == 0 {
			result = "success"
		}
		fmt.Fprintf(b, `{"id":"%08x-6666-4000-8000-00000000000%d","displayName":"CA%03d: Require multifactor authentication for group %d","enforcedGrantControls":["Mfa"],"enforcedSessionControls":[],"result":"%s","conditionsSatisfied":3,"conditionsNotSatisfied":0,"includeRulesSatisfied":[{"conditionalAccessCondition":"application","ruleSatisfied":"allApps"},{"conditionalAccessCondition":"users","ruleSatisfied":"userId"}],"excludeRulesSatisfied":[]}`, i, i, i, i, result)
	}
	b.WriteString(`],"authenticationContextClassReferences":[],"originalRequestId":"","isInteractive":true,"tokenIssuerName":"","tokenIssuerType":"AzureAD","authenticationProcessingDetails":[{"key":"Legacy TLS (TLS 1.0, 1.1, 3DES)","value":"False"},{"key":"Is CAE Token","value":"False"}],"networkLocationDetails":[{"networkType":"trustedNamedLocation","networkNames":["Head office"]}],"clientCredentialType":"none","processingTimeInMilliseconds":210,"riskDetail":"none","riskLevelAggregated":"none","riskLevelDuringSignIn":"none","riskState":"none","riskEventTypes":[],"riskEventTypes_v2":[],"resourceDisplayName":"Microsoft Graph","resourceId":"00000003-0000-0000-c000-000000000000","resourceTenantId":"3f1c2b7e-0000-4000-8000-00000000aaaa","homeTenantId":"3f1c2b7e-0000-4000-8000-00000000aaaa","authenticationDetails":[{"authenticationStepDateTime":"2026-03-02T09:00:00.1234567+00:00","authenticationMethod":"Previously satisfied","succeeded":true,"authenticationStepResultDetail":"First factor requirement satisfied by claim in the token","authenticationStepRequirement":"Primary authentication","StatusSequence":0,"RequestSequence":0}],"authenticationRequirementPolicies":[{"requirementProvider":"multiConditionalAccess","detail":"Conditional Access"}],"authenticationRequirement":"multiFactorAuthentication","servicePrincipalId":"","userType":"Member","flaggedForReview":false,"isTenantRestricted":false,"autonomousSystemNumber":64500,"crossTenantAccessType":"none","privateLinkDetails":{},"ssoExtensionVersion":"","uniqueTokenIdentifier":"`)
	b.WriteString(strings.Repeat("dG9r", 6))
	b.WriteString(`","authenticationStrengths":[],"incomingTokenType":"none","authenticationProtocol":"none","appServicePrincipalId":null,"resourceServicePrincipalId":"","rngcStatus":0,"signInTokenProtectionStatus":"none","tokenProtectionStatusDetails":{"signInSessionStatus":"unbound"},"originalTransferMethod":"none","isThroughGlobalSecureAccess":false,"conditionalAccessAudiences":[],"sessionLifetimePolicies":[],"appliedEventListeners":[]}}`)
	return b.Bytes()
}

// brokerVariable makes TestBrokerProcess a broker in a process of its own, so that its work does not count as the
// pipeline's.
const brokerVariable = "SIGNINDIAG_BENCH_BROKER"

func brokerProcess(b *testing.B) string {
	cmd := exec.Command(os.Args[0], "-test.run=^TestBrokerProcess$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), brokerVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	var address string
	if _, err := fmt.Fscanf(out, "broker %s\n", &address); err != nil {
		b.Fatal(err)
	}
	return address
}

func TestBrokerProcess(t *testing.T) {
	if os.Getenv(brokerVariable) == "" {
		t.Skip("only as a child of the benchmark")
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Printf("broker %s\n", c.ListenAddrs()[0])
	var b [1]byte
	os.Stdin.Read(b[:])
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWholeWay measures raw topic -> router -> entities topic -> shard -> sink with records of 5 KB. ns/op is per
// record; cpu-us/record is this process only, the broker has its own.
func BenchmarkWholeWay(b *testing.B) {
	const partitions = 4
	for _, machine := range []string{"none", "engine"} {
		b.Run(machine, func(b *testing.B) {
			k, err := OpenKafka(KafkaConfig{Brokers: []string{brokerProcess(b)}})
			if err != nil {
				b.Fatal(err)
			}
			defer k.Close()
			ensure(b, k, "raw", partitions)
			raw, err := NewRawProducer(b.Context(), k, "raw", CodecLZ4, logger(b))
			if err != nil {
				b.Fatal(err)
			}
			bytesIn := 0
			for n := 0; n < b.N; {
				var values [][]byte
				for range min(2000, b.N-n) {
					v := bigSignIn(nil, n)
					bytesIn += len(v)
					values = append(values, v)
					n++
				}
				if _, err := raw.Send(b.Context(), values); err != nil {
					b.Fatal(err)
				}
			}
			raw.Close()
			store, err := OpenSnapshots(b.Context(), "mem://", logger(b))
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			sink := &countingSink{}
			t := newTables()
			records := &memoryRecords{tables: t}
			p, err := New(Config{
				RawTopics: []RawTopic{{Name: "raw", Incarnation: 1}}, RawPartitions: partitions, EntitiesTopic: "entities", Partitions: partitions, EntitiesIncarnation: 1,
				Replicas: 1, Compression: CodecLZ4, SnapshotInterval: time.Hour, SnapshotRecords: 1 << 40,
			}, Dependencies{
				Kafka: k,
				NewMachine: func(shard, shards uint32) (Machine, error) {
					if machine == "none" {
						return idle{}, nil
					}
					return detectors.NewEngine(detectors.Options{Catalogue: knowledge, Shard: shard, Shards: shards})
				},
				Wanted: detectors.WantedRoles(), Catalogue: knowledge,
				NewSink:  func(durable func([]sinks.Position)) (RowSink, error) { sink.durable = durable; return sink, nil },
				Progress: t.readProgress, Quarantine: records, Snapshots: store, Logger: logger(b),
			})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			spent := cpu()
			b.ResetTimer()
			go func() { done <- p.Run(ctx) }()
			for counter(b, p.metrics.applied) < float64(b.N) {
				time.Sleep(time.Millisecond)
			}
			b.StopTimer()
			spent = cpu() - spent
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "cpu-us/record")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N), "allocs/record")
			b.ReportMetric(float64(bytesIn)/float64(b.N), "bytes/record")
			b.ReportMetric(counter(b, p.metrics.producer.bytes)/float64(b.N), "entities-bytes/record")
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}

// idle is a machine that does nothing, to see what the way alone costs.
type idle struct{}

func (idle) Apply(*schemas.EntityMessage, int64, *detectors.Rows) {}
func (idle) AppendSnapshot(dst []byte) []byte                     { return dst }
func (idle) RestoreSnapshot([]byte) error                         { return nil }
func (idle) SetEpoch(uint16)                                      {}
func (idle) Fingerprint() uint64                                  { return 1 }
