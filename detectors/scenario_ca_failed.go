package detectors

import (
	"github.com/signindiag/signindiag/schemas"
)

// recogniseCAFailed explains the codes of controls that were not met (device, app, platform, external controls), and 53003
// where the failing policies ask for something other than Block.
func recogniseCAFailed(s *subject) verdict {
	if s.is(53003) {
		switch {
		case s.failing == 0:
			return doesNotApply
		case s.failingBlock && !s.failingControls:
			return doesNotApply
		}
		s.policyEvidence()
		if !s.conditionsKnown {
			s.unknown("policy_conditions")
		}
		s.deviceUnknown()
		if s.failingBlock {
			return labels
		}
		return explains
	}
	v := s.byCode(ScenarioCAFailed)
	if v == explains {
		s.policyEvidence()
		if s.failing == 0 {
			s.policyUnknown()
		}
		s.deviceUnknown()
	}
	return v
}

// deviceUnknown notes that the device's state is not told, where a device was asked for.
func (s *subject) deviceUnknown() {
	if s.deviceTold(s.r.IsCompliant) != schemas.Tri_TRI_UNKNOWN || s.deviceTold(s.r.IsManaged) != schemas.Tri_TRI_UNKNOWN {
		return
	}
	if s.failingDevice || s.is(53000, 53001, 530001, 530002, 530003, 530033) {
		s.unknown("device_state")
	}
}
