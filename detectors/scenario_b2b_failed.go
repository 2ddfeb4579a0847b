package detectors

// recogniseB2BFailed explains the codes about accounts, invitations and settings between tenants. An unknown user name
// (50034) is one of them only where home and resource tenant are named and differ; the choice of another account is labelled
// then, and risk in the home tenant for every external user.
func recogniseB2BFailed(s *subject) verdict {
	v := s.byCode(ScenarioB2BFailed)
	if v == doesNotApply && s.user {
		switch {
		case s.is(50034) && s.foreign:
			v = explains
		case s.is(16000) && s.foreign, s.is(53011, 530034) && s.external:
			v = labels
		}
	}
	if v != doesNotApply {
		s.tenantEvidence()
	}
	return v
}
