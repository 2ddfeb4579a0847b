package detectors

// recogniseB2BCABlocked explains a refusal by Conditional Access of an external user, or by a policy whose rule about guests
// matched. Controls of devices and apps often cannot be met from another tenant.
func recogniseB2BCABlocked(s *subject) verdict {
	if s.byCode(ScenarioB2BCABlocked) != explains {
		external := s.external && s.is(53000, 53001, 53002, 53003, 53009, 530001, 530002, 530003, 530021)
		if !external && !(s.user && s.failingGuest && s.caRefusal()) {
			return doesNotApply
		}
	}
	s.tenantEvidence()
	s.policyEvidence()
	if s.failing == 0 {
		s.policyUnknown()
	}
	return explains
}
