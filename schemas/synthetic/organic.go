package synthetic

import (
	"cmp"
	"slices"
	"time"
)

// note is a record that belongs, or may belong, to a story that people make by themselves.
type note struct {
	what   uint8
	tenant uint16
	user   int32
	at     int64
	seed   uint64
}

const (
	noteRefused uint8 = iota // a person was refused for good
	noteLocked               // the same, by smart lockout
	noteExpired              // a workload used an expired secret
	noteLegacy               // a person got in with an old mail client
	noteAlone                // a person got in with the password alone
)

// note remembers a record, where it may be part of a story.
func (t *Traffic) note(e *event) {
	n := note{noteRefused, e.tenant, e.user, e.at, e.seed}
	switch e.code {
	case 0:
		switch {
		case e.client == clientIMAP || e.client == clientSMTP:
			n.what = noteLegacy
		case e.class == interactive && e.detail == detailPassword:
			n.what = noteAlone
		default:
			return
		}
	case 50053:
		n.what = noteLocked
	case 7000222:
		n.what = noteExpired
	case 50126, 53000, 53003, 50057, 500121:
	default: // interrupts, ended tokens, faults of applications, and names that are nobody's
		return
	}
	t.notes = append(t.notes, n)
}

// repeatedFailures and repeatedWithin say when refusals of one person are a story: Microsoft's own diagnostic looks back 48
// hours, and five in a row are beyond mistyping.
const (
	repeatedFailures = 5
	repeatedWithin   = 48 * time.Hour
)

// Organic returns the ground truth of what people and workloads did by themselves that is worth an incident: somebody who
// forgot the password and was locked (account_lockout), others who were refused five times within 48 hours
// (repeated_failures), workloads with an expired secret, and people who use old mail clients where the tenant lets them. The
// records of planted attacks are not counted in. The outcome of repeated_failures is signed_in where the person got in with the
// password alone after five of them: whether that was the person, no log tells. It is empty without Options.Remember, and tells what was started so far,
// delivered or not.
func (t *Traffic) Organic() []Planted {
	notes := slices.Clone(t.notes)
	story := func(n note) [3]int { // of the same user, workload ... of a tenant
		of := int(noteRefused)
		if n.what == noteExpired || n.what == noteLegacy {
			of = int(n.what)
		}
		return [3]int{of, int(n.tenant), int(n.user)}
	}
	slices.SortFunc(notes, func(a, b note) int {
		x, y := story(a), story(b)
		return cmp.Or(slices.Compare(x[:], y[:]), cmp.Compare(a.at, b.at), cmp.Compare(a.seed, b.seed))
	})
	var out []Planted
	for len(notes) > 0 {
		k := 1
		for k < len(notes) && story(notes[k]) == story(notes[0]) {
			k++
		}
		if p, ok := t.organic(notes[:k]); ok {
			out = append(out, p)
		}
		notes = notes[k:]
	}
	return out
}

// organic makes the story of the notes of one user or workload, if there is one.
func (t *Traffic) organic(notes []note) (Planted, bool) {
	tn := t.tenants[notes[0].tenant]
	p := Planted{Kind: "repeated_failures", Outcome: "blocked", TenantID: tn.id}
	switch notes[0].what {
	case noteExpired:
		p.Kind, p.Outcome = "expired_secret", "failing"
	case noteLegacy:
		p.Kind, p.Outcome = "legacy_auth", "signed_in"
	default:
		var alone int64
		notes = slices.DeleteFunc(notes, func(n note) bool {
			if n.what == noteAlone {
				alone = n.at
			}
			return n.what == noteAlone
		})
		repeated := false
		for i := repeatedFailures - 1; i < len(notes); i++ {
			repeated = repeated || notes[i].at-notes[i-repeatedFailures+1].at < repeatedWithin.Microseconds()
		}
		if repeated && alone >= notes[repeatedFailures-1].at {
			p.Outcome = "signed_in"
		}
		if slices.ContainsFunc(notes, func(n note) bool { return n.what == noteLocked }) {
			p.Kind, p.Outcome = "account_lockout", "locked"
		} else if !repeated {
			return p, false
		}
	}
	if p.Kind == "expired_secret" {
		w := &tn.principals[notes[0].user]
		p.Users, p.UserIDs = []string{w.name}, []string{w.id}
	} else {
		u := tn.user(int(notes[0].user))
		p.Users, p.UserIDs = []string{u.upn}, []string{u.id}
	}
	for _, n := range notes {
		p.RequestIDs = append(p.RequestIDs, GUID(n.seed, 1))
	}
	p.First, p.Last = time.UnixMicro(notes[0].at).UTC(), time.UnixMicro(notes[len(notes)-1].at).UTC()
	return p, true
}
