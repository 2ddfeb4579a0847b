package schemas

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	at := func(year, month, day, hour, minute, second, nanos int) time.Time {
		return time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	}
	for in, want := range map[string]time.Time{
		"2026-03-02T08:13:55.1034567+00:00": at(2026, 3, 2, 8, 13, 55, 103456000),
		"2026-03-02T08:13:55Z":              at(2026, 3, 2, 8, 13, 55, 0),
		"2026-03-02T08:13:55":               at(2026, 3, 2, 8, 13, 55, 0),
		"2026-03-02T08:13Z":                 at(2026, 3, 2, 8, 13, 0, 0),
		"2026-03-02":                        at(2026, 3, 2, 0, 0, 0, 0),
		"2026-03-02T08:13:55.2Z":            at(2026, 3, 2, 8, 13, 55, 200000000),
		"2026-03-02T08:13:55.123456789Z":    at(2026, 3, 2, 8, 13, 55, 123456000),
		"2026-03-02T10:13:55+02:00":         at(2026, 3, 2, 8, 13, 55, 0),
		"2026-03-02T03:13:55.5-0500":        at(2026, 3, 2, 8, 13, 55, 500000000),
		"2026-03-02T03:13:55-05":            at(2026, 3, 2, 8, 13, 55, 0),
		"2026-03-02T9:13:55.958Z":           at(2026, 3, 2, 9, 13, 55, 958000000),
		"2026-03-02 08:13:55.456":           at(2026, 3, 2, 8, 13, 55, 456000000),
		" 2026-03-02 08:13:55 UTC ":         at(2026, 3, 2, 8, 13, 55, 0),
		"2024-02-29T23:59:59Z":              at(2024, 2, 29, 23, 59, 59, 0),
		"12/31/2025 3:03:58 PM":             at(2025, 12, 31, 15, 3, 58, 0),
		"12/31/2025 12:03:58 AM":            at(2025, 12, 31, 0, 3, 58, 0),
		"12/31/2025 12:03:58 PM":            at(2025, 12, 31, 12, 3, 58, 0),
		"01/09/2007 09:41:00":               at(2007, 1, 9, 9, 41, 0, 0),
		"1/9/2007 10:41:00 AM +01:00":       at(2007, 1, 9, 9, 41, 0, 0),
		"1/9/2007 21:41":                    at(2007, 1, 9, 21, 41, 0, 0),
		"5/20/2020, 6:19:04.423 PM":         at(2020, 5, 20, 18, 19, 4, 423000000),
		"5/20/2020, 6:19:04\u202fPM":        at(2020, 5, 20, 18, 19, 4, 0),
		"5/20/2020":                         at(2020, 5, 20, 0, 0, 0, 0),
		"/Date(1772439235103)/":             at(2026, 3, 2, 8, 13, 55, 103000000),
		"/Date(1772439235103+0200)/":        at(2026, 3, 2, 8, 13, 55, 103000000),
		"9999-12-31T23:59:59.9999999Z":      at(9999, 12, 31, 23, 59, 59, 999999000),
	} {
		micros, ok := ParseTime(in)
		if !ok || !TimeOf(micros).Equal(want) {
			t.Errorf("%q: got %v, %v, want %v", in, TimeOf(micros), ok, want)
		}
	}
	for _, in := range []string{
		"", "x", "0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2025-02-29", "2026-03-02T24:00:00Z",
		"2026-03-02T08:60:00Z", "2026-03-02T08:13:55Zx", "2026-03-02T08:13:55+", "2026-03-02T08:13:55+99:00", "2026-03-02X08:13", "13/12/2025 3:03:58 PM",
		"12/12/2025 13:03:58 PM", "12/12/2025 0:03:58 PM", "12/12/25 3:03 PM", "/Date()/", "/Date(5", "/Date(99999999999999999)/", "2026-", "20260302", "1/", "1/2/2026 3",
	} {
		if micros, ok := ParseTime(in); ok {
			t.Errorf("%q is taken for %v", in, TimeOf(micros))
		}
	}
	if !TimeOf(0).IsZero() {
		t.Error("0 is not the zero time")
	}
}

// TestParseTimeAgrees compares with the standard library over many days, offsets and fractions.
func TestParseTimeAgrees(t *testing.T) {
	zones := []*time.Location{time.UTC, time.FixedZone("", 5*3600+1800), time.FixedZone("", -8*3600)}
	for at := time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC); at.Year() < 2110; at = at.Add(1_234_567_891 * 100 * time.Microsecond) {
		for _, zone := range zones {
			for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.0000000Z07:00"} {
				s := at.In(zone).Format(layout)
				if micros, ok := ParseTime(s); !ok || micros != at.UnixMicro() {
					t.Fatalf("%s: got %d, %v, want %d", s, micros, ok, at.UnixMicro())
				}
			}
		}
		s := at.Format("1/2/2006 3:04:05 PM")
		if micros, ok := ParseTime(s); !ok || micros != at.Truncate(time.Second).UnixMicro() {
			t.Fatalf("%s: got %d, %v, want %d", s, micros, ok, at.Unix())
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2026-03-02T08:13:55.1034567+00:00", "12/31/2025 3:03:58 PM", "/Date(1772439235103)/", "1/9/2007 10:41:00 AM +01:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if micros, ok := ParseTime(s); ok && (micros <= 0 || micros > maxMicros+86400*1_000_000) {
			t.Fatalf("%q: %d is out of range", s, micros)
		}
	})
}
