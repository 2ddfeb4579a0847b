package detectors

import "strings"

// recogniseLegacyAuth explains a sign-in of a legacy client where the client got in or is what stopped it: a policy
// that blocks by client type, or a demand for MFA or a device that such a client cannot meet. In all
// other cases, such as a wrong password over IMAP, it labels. Legacy authentication is not legacy TLS. Exchange ActiveSync may
// be logged as a success although Conditional Access refused it: only its status tells then.
func recogniseLegacyAuth(s *subject) verdict {
	if !s.legacy {
		return doesNotApply
	}
	s.e.SetText(s.keys.legacyClient, s.r.ClientAppUsed)
	switch {
	case s.success():
		if containsAny(s.r.ClientAppUsed, "activesync", "active sync") {
			s.unknown("active_sync_result")
			if strings.EqualFold(s.r.ConditionalAccessStatus, "failure") {
				s.refused = true
				s.e.SetBool(s.keys.legacyBlocked, true)
				s.policyEvidence()
			}
		}
		return explains
	case s.is(53003) && (s.failingClient || s.failingMFADevice),
		s.caRefusal() && !s.is(53003) && s.failingMFADevice,
		(s.mfaPrompt() || s.is(50072, 50079)) && (s.failingMFADevice || s.demand != 0):
		s.e.SetBool(s.keys.legacyBlocked, true)
		s.policyEvidence()
		return explains
	}
	return labels
}
