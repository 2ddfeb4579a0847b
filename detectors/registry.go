package detectors

import "github.com/signindiag/signindiag/schemas"

// WantedRoles returns the roles that an engine consumes: the full roles, in which every record is diagnosed, and what
// the families of incidents ask for.
func WantedRoles() schemas.RoleSet {
	set := fullRoles
	for i := range families {
		set |= families[i].roles
	}
	return set
}

var fullRoles = schemas.Roles(schemas.Role_ROLE_USER, schemas.Role_ROLE_SERVICE_PRINCIPAL)
