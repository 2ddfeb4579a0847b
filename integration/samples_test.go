package integration

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signindiag/signindiag/integration/program"
	"github.com/signindiag/signindiag/integration/servers"
	"github.com/signindiag/signindiag/schemas"
	"github.com/signindiag/signindiag/schemas/exports"
)

// TestSamples imports real records, where a folder of them is at hand, and looks every one of them up.
func TestSamples(t *testing.T) {
	folder := os.Getenv("SIGNINDIAG_SAMPLES")
	if folder == "" {
		folder = filepath.Join("..", "..", "shared", "samples")
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.ndjson"))
	if err != nil || len(files) == 0 {
		servers.SkipOrFail(t, "samples", errors.New("no real records in "+folder+"; SIGNINDIAG_SAMPLES names another folder"))
	}
	type record struct{ requestID, correlationID string }
	var records []record
	decoder := schemas.NewDecoder()
	for _, path := range files {
		reader, err := exports.Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for {
			item, err := reader.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || item.Err != nil {
				t.Fatal(err, item.Err)
			}
			decoder.Decode(item.Value, time.Now(), func(_ int, d *schemas.Decoded) {
				if d.Kind == schemas.KindBroken {
					t.Errorf("%s:%d is broken: %v", path, item.Line, d.Err)
				}
				if d.Kind == schemas.KindSignIn {
					r := record{strings.Clone(d.SignIn.RequestId), strings.Clone(d.SignIn.CorrelationId)}
					if !slices.Contains(records, r) {
						records = append(records, r)
					}
				}
			})
		}
		if err := reader.Close(); err != nil {
			t.Fatal(err)
		}
	}

	data := t.TempDir()
	u := startUp(t, data)
	out, errs, code := command(t, nil, append([]string{"import", "--data", data}, files...)...)
	if code != 0 {
		t.Fatalf("import: exit code %d\n%s%s", code, out, errs)
	}
	t.Logf("%s", out)
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{u.WaitFor(`ClickHouse +(\S+)`)[1]}, Auth: clickhouse.Auth{Database: "signindiag"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ids := map[string]bool{}
	for _, r := range records {
		ids[r.requestID] = true
	}
	var found uint64
	for deadline := time.Now().Add(program.Long); ; time.Sleep(100 * time.Millisecond) {
		if err := conn.QueryRow(t.Context(), "SELECT uniqExact(request_id) FROM diagnoses FINAL").Scan(&found); err != nil {
			t.Fatal(err)
		}
		if found >= uint64(len(ids)) || time.Now().After(deadline) {
			break
		}
	}
	if found != uint64(len(ids)) {
		t.Errorf("%d request ids in ClickHouse, want %d", found, len(ids))
	}
	for i, r := range records {
		if r.requestID == "00000000-0000-0000-0000-000000000000" {
			continue // an id that was made illegible names nothing
		}
		status, body := get(t, u.API()+"/v1/diagnoses/"+r.requestID)
		if status != 200 || !strings.Contains(body, r.requestID) {
			t.Errorf("look-up of request %s: status %d\n%.200s", r.requestID, status, body)
		}
		if schemas.IsGroupingID(r.correlationID) && i%10 == 0 {
			if out, errs, code := command(t, nil, "lookup", "--data", data, r.correlationID); code != 0 {
				t.Errorf("look-up of correlation %s: exit code %d\n%s%s", r.correlationID, code, out, errs)
			}
		}
	}
}
