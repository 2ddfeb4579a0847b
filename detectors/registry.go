package detectors

import "github.com/signindiag/signindiag/schemas"

// Detection is one windowed detection: what it is called, what it looks at and where its state lives.
type Detection struct {
	// Name is the label that it gives to diagnoses and the kind of its incidents.
	Name string
	// Roles are the roles of the messages that it consumes.
	Roles schemas.RoleSet
}

// detections are all that are registered, in the order in which they see a message.
var detections = []Detection{
	{Name: IncidentRepeatedFailures, Roles: schemas.Roles(schemas.Role_ROLE_USER)},
}

// WantedRoles returns the roles that an engine consumes: the full roles, in which every record is diagnosed, and what
// the registered detections ask for.
func WantedRoles() schemas.RoleSet {
	set := fullRoles
	for _, d := range detections {
		set |= d.Roles
	}
	return set
}

var fullRoles = schemas.Roles(schemas.Role_ROLE_USER, schemas.Role_ROLE_SERVICE_PRINCIPAL)
