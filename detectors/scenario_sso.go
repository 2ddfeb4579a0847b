package detectors

import "strings"

// recogniseSSO explains the codes of Seamless SSO. The person is normally just asked for the password, so a success often follows.
// It labels the session that lacks Windows authentication (51006), and whatever else goes wrong at its endpoint, where
// passwords are sprayed too.
func recogniseSSO(s *subject) verdict {
	v := s.byCode(ScenarioSSO)
	if v == doesNotApply && (s.is(51006) || strings.EqualFold(s.r.AuthenticationProtocol, "seamlessSso")) {
		return labels
	}
	return v
}
