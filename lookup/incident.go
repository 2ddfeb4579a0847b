package lookup

import (
	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// withheld stands in sentences for a name that the viewer may not see.
const withheld = "(a right to see its name is missing)"

// incidentReport is the report of an incident for a viewer; a name that may not be seen is empty.
func incidentReport(i *detectors.Incident, renderer detectors.Renderer, capabilities catalogue.Capability) detectors.IncidentReport {
	visible := i.Visible(capabilities, "")
	return renderer.IncidentReport(&visible)
}
