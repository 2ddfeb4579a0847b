package detectors

// detectLegacyAuth finds sign-ins of a user with legacy clients that got in, or that were stopped for the client after a right
// password. Wrong passwords over legacy clients count in the user's failures and in sprays. One incident holds the
// sign-ins of a digest period.
var detectLegacyAuth = &detection{kind: IncidentLegacyAuth, find: func(s *story) (f finding) {
	f = finding{found: true, severity: severityLow, outcome: outcomePasswordKnown}
	for _, v := range s.events {
		if v.class.has(classSuccess) {
			f.severity, f.outcome = severityHigh, outcomeSignedIn
			break
		}
	}
	return f
}}
