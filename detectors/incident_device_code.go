package detectors

// detectDeviceCode finds a device code sign-in that succeeded and was seen from several addresses or with several user agents:
// the code was asked for in one place and confirmed in another, as when someone was talked into it.
var detectDeviceCode = &detection{kind: IncidentDeviceCode, find: func(s *story) (f finding) {
	t := &s.th.DeviceCode
	for _, v := range s.events {
		if !v.class.has(classSuccess) {
			continue
		}
		var addresses, agents [16]uint32
		for _, x := range s.events {
			if !sameSession(v, x) || v.time-x.time > t.Window.Microseconds() || x.time-v.time > t.Window.Microseconds() {
				continue
			}
			note(&addresses, x.address)
			note(&agents, x.agent)
		}
		if max(count(&addresses), count(&agents)) >= t.Places {
			return finding{found: true, severity: severityHigh, outcome: outcomeSignedIn}
		}
	}
	return f
}}

// sameSession reports whether two events are of one device code session: by its id, or by the correlation id, unless that is
// all zeros.
func sameSession(a, b *event) bool {
	return a.session != 0 && a.session == b.session || a.correlation == b.correlation && a.correlation != [16]byte{} &&
		a.class&classCorrelationText == b.class&classCorrelationText
}

// note adds a value to a small set, unless it is 0 or the set is full.
func note(set *[16]uint32, v uint32) {
	for i := range set {
		if v == 0 || set[i] == v {
			return
		}
		if set[i] == 0 {
			set[i] = v
			return
		}
	}
}

func count(set *[16]uint32) (n int) {
	for n < len(set) && set[n] != 0 {
		n++
	}
	return n
}
