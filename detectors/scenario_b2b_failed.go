package detectors

// recogniseB2BFailed explains the codes about accounts, invitations and settings between tenants. An unknown user name
// (50034) is one of them only where home and resource tenant are named and differ; risk in the home tenant and the choice of
// another account are labelled then.
func recogniseB2BFailed(s *subject) verdict {
	v := s.byCode(ScenarioB2BFailed)
	if v == doesNotApply && s.user {
		switch {
		case s.is(50034) && s.foreign:
			v = explains
		case s.is(16000, 53011, 530034) && s.foreign:
			v = labels
		}
	}
	if v != doesNotApply {
		s.tenantEvidence()
	}
	return v
}
