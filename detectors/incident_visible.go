package detectors

import (
	"strings"

	"github.com/signindiag/signindiag/schemas/catalogue"
)

// Visible returns the incident as a viewer with the given capabilities may see it: the name of a policy needs the right to
// see Conditional Access; placeholder takes its place. It shares the lists of i.
func (i *Incident) Visible(capabilities catalogue.Capability, placeholder string) Incident {
	visible := *i
	if strings.Contains(i.EntityKind, "policy") && !capabilities.Has(catalogue.CapabilityConditionalAccess) {
		visible.EntityValue = placeholder
	}
	return visible
}
