package lookup

import (
	"strings"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// withheld stands in sentences for a name that the viewer may not see.
const withheld = "(a right to see its name is missing)"

// visibleIncident returns an incident as a viewer may see it: the name of a policy needs the right to see
// Conditional Access. placeholder takes its place.
func visibleIncident(i *detectors.Incident, capabilities catalogue.Capability, placeholder string) detectors.Incident {
	visible := *i
	if strings.Contains(i.EntityKind, "policy") && !capabilities.Has(catalogue.CapabilityConditionalAccess) {
		visible.EntityValue = placeholder
	}
	return visible
}

// incidentReport is the report of an incident for a viewer; a name that may not be seen is empty.
func incidentReport(i *detectors.Incident, renderer detectors.Renderer, capabilities catalogue.Capability) detectors.IncidentReport {
	visible := visibleIncident(i, capabilities, "")
	return renderer.IncidentReport(&visible)
}
