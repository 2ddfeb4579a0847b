package detectors

// recogniseAppServiceProvider explains requests that the application has to change: SAML, OAuth, PKCE, a wrong secret, loops.
// Whether 700016 and 50011 are the application's or the configuration's fault only the values tell, so both are shown.
func recogniseAppServiceProvider(s *subject) verdict {
	v := s.byApplication(ScenarioAppServiceProvider)
	if v == doesNotApply && s.is(50027) {
		return labels // a token that ended for a user, a malformed one for its application
	}
	return v
}

// byApplication is byCode with the values that tell which side is wrong.
func (s *subject) byApplication(name string) verdict {
	v := s.byCode(name)
	if v == explains {
		s.e.SetText(s.keys.redirectURL, s.r.RedirectUrl)
		if s.r.ClientCredentialType != "none" {
			s.e.SetText(s.keys.credentialType, s.r.ClientCredentialType)
		}
		s.e.SetText(s.keys.credentialKeyID, s.r.ServicePrincipalCredentialKeyId)
	}
	return v
}
