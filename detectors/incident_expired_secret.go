package detectors

// detectExpiredSecret finds a service principal that uses an expired secret or certificate: work for its owner, no attack.
var detectExpiredSecret = &detection{kind: IncidentExpiredSecret, find: func(*story) finding {
	return finding{found: true, severity: severityMedium, outcome: outcomeFailing}
}}
