package detectors

import (
	"slices"
	"strings"
)

// Clone returns a deep copy of the rows that shares no memory with them or with the engine.
func (r *Rows) Clone() Rows {
	var out Rows
	out.AppendClone(r)
	return out
}

// AppendClone appends deep copies of the rows of src.
func (r *Rows) AppendClone(src *Rows) {
	for i := range src.Diagnoses {
		r.Diagnoses = append(r.Diagnoses, src.Diagnoses[i].Clone())
	}
	for i := range src.Incidents {
		r.Incidents = append(r.Incidents, src.Incidents[i].Clone())
	}
	for i := range src.Members {
		r.Members = append(r.Members, src.Members[i].Clone())
	}
	r.UnknownCodes = append(r.UnknownCodes, src.UnknownCodes...)
}

// Clone returns a deep copy.
func (d *Diagnosis) Clone() Diagnosis {
	c := *d
	for _, s := range [...]*string{
		&c.RequestID, &c.CorrelationID, &c.TenantID, &c.Category, &c.User, &c.UserID, &c.App, &c.Resource, &c.ClientApp,
		&c.Address, &c.Outcome, &c.AttemptID, &c.AttemptOutcome, &c.Scenario, &c.Severity,
	} {
		*s = strings.Clone(*s)
	}
	c.Also, c.Unknown, c.Incidents = cloneStrings(d.Also), cloneStrings(d.Unknown), cloneStrings(d.Incidents)
	c.Evidence = d.Evidence.Clone()
	return c
}

// Clone returns a deep copy.
func (i *Incident) Clone() Incident {
	c := *i
	for _, s := range [...]*string{&c.IncidentID, &c.Kind, &c.Severity, &c.EntityKind, &c.EntityValue, &c.TenantID, &c.Outcome} {
		*s = strings.Clone(*s)
	}
	for _, l := range [...]*[]string{&c.Also, &c.Joined, &c.Users, &c.Addresses, &c.Applications, &c.Devices, &c.OperatingSystems, &c.ClientApps, &c.RequestIDs} {
		*l = cloneStrings(*l)
	}
	c.Counts = slices.Clone(i.Counts)
	return c
}

// Clone returns a deep copy.
func (m *IncidentMember) Clone() IncidentMember {
	c := *m
	for _, s := range [...]*string{&c.IncidentID, &c.TenantID, &c.RequestID, &c.CorrelationID} {
		*s = strings.Clone(*s)
	}
	return c
}

func cloneStrings(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.Clone(s)
	}
	return out
}
