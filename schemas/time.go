package schemas

import (
	"strings"
	"time"
)

// ParseTime reads a time as it stands in sign-in records and their exports and returns microseconds
// since the Unix epoch. ok is false for text that is no time, and for times before 1970: the zero date
// 0001-01-01 of .NET means absent. A time without a zone is UTC, as the log is. Forms, all met in
// public records:
//
//	2026-03-02T08:13:55.1034567+00:00   ISO 8601, 0 to 9 fractional digits, Z, offset or no zone; a space for the T
//	12/31/2025 3:03:58 PM               month first, 12 or 24 hours, with or without fraction and offset
//	12/31/2025, 3:03:58.123 PM          the Log Analytics portal's CSV
//	/Date(1772439235103)/               Windows PowerShell 5 ConvertTo-Json
//
// Digits beyond microseconds are cut off.
func ParseTime(s string) (micros int64, ok bool) {
	s = trimSpace(s)
	if len(s) >= 5 && s[4] == '-' {
		return parseISO(s)
	}
	if strings.HasPrefix(s, "/Date(") {
		return parseDotNet(s)
	}
	return parseUS(s)
}

// trimSpace cuts ASCII white space and control characters from both ends.
func trimSpace(s string) string {
	for len(s) > 0 && s[0] <= ' ' {
		s = s[1:]
	}
	for len(s) > 0 && s[len(s)-1] <= ' ' {
		s = s[:len(s)-1]
	}
	return s
}

// timeParts are the fields of a civil time; fraction is in microseconds, offset in seconds east of UTC.
type timeParts struct {
	year, month, day, hour, minute, second, fraction, offset int
}

func (t *timeParts) micros() (int64, bool) {
	if t.year < 1970 || t.year > 9999 || t.month < 1 || t.month > 12 || t.day < 1 || t.day > daysIn(t.month, t.year) ||
		t.hour > 23 || t.minute > 59 || t.second > 60 {
		return 0, false
	}
	// Days since the epoch after Howard Hinnant's days_from_civil: years start in March.
	y := t.year
	if t.month <= 2 {
		y--
	}
	era := y / 400
	yoe := y - era*400
	doy := (153*((t.month+9)%12)+2)/5 + t.day - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	days := int64(era)*146097 + int64(doe) - 719468
	seconds := days*86400 + int64(t.hour*3600+t.minute*60+t.second-t.offset)
	micros := seconds*1_000_000 + int64(t.fraction)
	return micros, micros > 0
}

func daysIn(month, year int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// digits reads between low and high decimal digits at s[i:].
func digits(s string, i, low, high int) (value, next int, ok bool) {
	start := i
	for i < len(s) && i-start < high && s[i] >= '0' && s[i] <= '9' {
		value = value*10 + int(s[i]-'0')
		i++
	}
	return value, i, i-start >= low
}

func parseISO(s string) (int64, bool) {
	var t timeParts
	var ok bool
	i := 0
	if t.year, i, ok = digits(s, 0, 4, 4); !ok {
		return 0, false
	}
	if t.month, i, ok = digits(s, i+1, 1, 2); !ok || i >= len(s) || s[i] != '-' {
		return 0, false
	}
	if t.day, i, ok = digits(s, i+1, 1, 2); !ok {
		return 0, false
	}
	if i == len(s) {
		return t.micros()
	}
	if s[i] != 'T' && s[i] != 't' && s[i] != ' ' {
		return 0, false
	}
	if i, ok = parseClock(s, i+1, &t); !ok {
		return 0, false
	}
	if i, ok = parseOffset(s, i, &t); !ok || i != len(s) {
		return 0, false
	}
	return t.micros()
}

// parseClock reads hours:minutes, with optional seconds and fraction.
func parseClock(s string, i int, t *timeParts) (int, bool) {
	var ok bool
	if t.hour, i, ok = digits(s, i, 1, 2); !ok || i >= len(s) || s[i] != ':' {
		return i, false
	}
	if t.minute, i, ok = digits(s, i+1, 2, 2); !ok {
		return i, false
	}
	if i >= len(s) || s[i] != ':' {
		return i, true
	}
	if t.second, i, ok = digits(s, i+1, 2, 2); !ok {
		return i, false
	}
	if i < len(s) && (s[i] == '.' || s[i] == ',') && i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9' {
		i++
		scale := 100_000
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			t.fraction += int(s[i]-'0') * scale
			scale /= 10
			i++
		}
	}
	return i, true
}

// parseOffset reads Z, +01:00, -0500, +01 or nothing.
func parseOffset(s string, i int, t *timeParts) (int, bool) {
	for i < len(s) && s[i] == ' ' {
		i++
	}
	if i >= len(s) {
		return i, true
	}
	switch s[i] {
	case 'Z', 'z':
		return i + 1, true
	case '+', '-':
		sign := 1
		if s[i] == '-' {
			sign = -1
		}
		hours, next, ok := digits(s, i+1, 2, 2)
		if !ok {
			return i, false
		}
		minutes := 0
		if next < len(s) {
			if s[next] == ':' {
				next++
			}
			if minutes, next, ok = digits(s, next, 2, 2); !ok {
				return i, false
			}
		}
		if hours > 14 || minutes > 59 {
			return i, false
		}
		t.offset = sign * (hours*3600 + minutes*60)
		return next, true
	}
	if len(s)-i >= 3 && (s[i:i+3] == "UTC" || s[i:i+3] == "GMT") {
		return i + 3, true
	}
	return i, false
}

func parseUS(s string) (int64, bool) {
	var t timeParts
	var ok bool
	i := 0
	if t.month, i, ok = digits(s, 0, 1, 2); !ok || i >= len(s) || s[i] != '/' {
		return 0, false
	}
	if t.day, i, ok = digits(s, i+1, 1, 2); !ok || i >= len(s) || s[i] != '/' {
		return 0, false
	}
	if t.year, i, ok = digits(s, i+1, 4, 4); !ok {
		return 0, false
	}
	if i < len(s) && s[i] == ',' {
		i++
	}
	i = skipSpaces(s, i)
	if i == len(s) {
		return t.micros()
	}
	if i, ok = parseClock(s, i, &t); !ok {
		return 0, false
	}
	i = skipSpaces(s, i)
	if i+1 < len(s) && s[i+1]|0x20 == 'm' && (s[i]|0x20 == 'a' || s[i]|0x20 == 'p') {
		if t.hour < 1 || t.hour > 12 {
			return 0, false
		}
		t.hour %= 12
		if s[i]|0x20 == 'p' {
			t.hour += 12
		}
		i += 2
	}
	if i, ok = parseOffset(s, i, &t); !ok || i != len(s) {
		return 0, false
	}
	return t.micros()
}

// skipSpaces skips spaces, among them the no-break spaces that browsers put before AM and PM.
func skipSpaces(s string, i int) int {
	for i < len(s) {
		switch {
		case s[i] == ' ':
			i++
		case strings.HasPrefix(s[i:], "\u00a0"):
			i += len("\u00a0")
		case strings.HasPrefix(s[i:], "\u202f"):
			i += len("\u202f")
		default:
			return i
		}
	}
	return i
}

func parseDotNet(s string) (int64, bool) {
	millis, i, ok := digits(s, len("/Date("), 1, 15)
	if !ok || i >= len(s) {
		return 0, false
	}
	// An offset behind the number only says how the time was shown.
	if rest := s[i:]; rest != ")/" && (rest[0] != '+' && rest[0] != '-' || !strings.HasSuffix(rest, ")/")) {
		return 0, false
	}
	micros := int64(millis) * 1000
	return micros, micros > 0 && micros < maxMicros
}

// maxMicros is the end of the year 9999.
const maxMicros = 253402300800 * 1_000_000

// TimeOf turns microseconds since the Unix epoch, as EventTime and ProcessingTime hold them, into a time
// in UTC. 0 is the zero time.
func TimeOf(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}
