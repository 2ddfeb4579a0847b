package detectors

// recogniseDeviceState explains devices that must prove themselves (50097, 50129, 50127: interrupts) and broken registrations or keys. Failing
// policies beside 50097 prove no block.
func recogniseDeviceState(s *subject) verdict { return s.byCode(ScenarioDeviceState) }
