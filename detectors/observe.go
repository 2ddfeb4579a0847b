package detectors

import (
	"slices"
	"strings"

	"github.com/signindiag/signindiag/schemas"
)

// observe brings the windows of a record's user or service principal up to date, tells its incidents, and reports
// whether rows of other records may say something else now. counts is whether the record counts as a failure.
func (e *Engine) observe(id identity, rec *schemas.SignIn, entry *recentEntry, counts bool, received int64, revision uint64, out *Rows) bool {
	c := classOf(rec, e.catalogue)
	if !counts {
		c &^= classCounts
	} else {
		entry.flags |= entryCounts
	}
	if id.role == schemas.Role_ROLE_USER && len(e.settings.Of(rec.TenantId).PrivilegedUsers) > 0 &&
		e.settings.Of(rec.TenantId).Privileged(rec.UserPrincipalName, rec.UserId, rec.SignInIdentifier) {
		c |= classPrivileged
	}
	isEvent := c.any(classCounts|classDeviceCode|classWrongSecret|classExpired) || c.has(classLegacy) && c.any(classSuccess|classLegacyStop)
	isPass := c.has(classSuccess) && (!c.has(classSilent) || id.role == schemas.Role_ROLE_SERVICE_PRINCIPAL) ||
		c.has(classStopped) && !c.has(classCounts)
	n := e.entities.get(id.key)
	if n == nil {
		if !isEvent {
			return false
		}
		n = e.entities.create(id.key, id.role)
		n.tenant = e.entities.texts.holdWhole(rec.TenantId)
		n.name = e.entities.texts.hold(userName(rec))
		e.recall(n, entry)
		e.entities.touch(n, entitySize, received)
	}
	return e.take(n, rec, entry.eventTime, entry.request, id.key, c, isEvent, isPass, received, revision, out)
}

// recall gives a new entity the right passwords that the recent store still holds.
func (e *Engine) recall(n *entity, except *recentEntry) {
	e.ofUser = e.recent.ofUser(e.ofUser[:0], n.key, maxRevisedRecords, func(x *recentEntry) bool {
		return x != except && x.kind != kindFailure && (x.flags&entrySilent == 0 || n.role != schemas.Role_ROLE_USER)
	})
	for _, seq := range e.ofUser {
		x := e.recent.at(seq)
		if x.kind == kindInterrupted {
			if code := e.catalogue.Code(x.code); code == nil || !code.PasswordWasRight() {
				continue
			}
		}
		if err := e.recent.record(x, &e.decoded); err != nil {
			e.stats.Unreadable++
			continue
		}
		if c := classOf(&e.decoded, e.catalogue) &^ classCounts; c.any(classSuccess | classStopped) {
			e.entities.addPass(n, e.entities.newPass(&e.decoded, x.eventTime, x.request, n.key, c, false), &e.counter)
		}
	}
}

// applyGroups brings the windows of the address, network, agent ... of a record up to date.
func (e *Engine) applyGroups(rec *schemas.SignIn, roles schemas.RoleSet, received int64, revision uint64, out *Rows) {
	if roles&fullRoles != 0 {
		// What a row says must not depend on which entities happen to share a shard with the user.
		schemas.CompactFor(&e.compact, rec)
		rec = &e.compact
	}
	c := classOf(rec, e.catalogue)
	actor := e.dealer.identify(rec)
	if !actor.known {
		// Whoever is not named may be one and the same: five such records are no five users.
		actor.key = e.dealer.entity(actor.role, rec.TenantId, "")
	}
	if actor.role == schemas.Role_ROLE_USER && len(e.settings.Of(rec.TenantId).PrivilegedUsers) > 0 &&
		e.settings.Of(rec.TenantId).Privileged(rec.UserPrincipalName, rec.UserId) {
		c |= classPrivileged
	}
	hash := schemas.Hash64(rec.RequestId)
	e.dealer.groups(rec, roles, func(role schemas.Role, key uint64, policy *schemas.Policy) {
		if e.options.Shards > 0 && key%uint64(e.options.Shards) != uint64(e.options.Shard) || !c.concerns(role) {
			return
		}
		isEvent, isPass := c.any(eventsOf(role)), false
		if !isEvent {
			isPass = c.has(classStopped) || c.has(classSuccess) && !c.has(classSilent)
		}
		n := e.entities.get(key)
		if n == nil {
			if !isEvent {
				return
			}
			n = e.entities.create(key, role)
			e.name(n, rec, policy)
			e.entities.touch(n, entitySize, received)
		}
		e.take(n, rec, rec.EventTime, hash, actor.key, c, isEvent, isPass, received, revision, out)
	})
}

// eventsOf returns the classes that are events of a role's entities.
func eventsOf(role schemas.Role) class {
	switch role {
	case schemas.Role_ROLE_ADDRESS, schemas.Role_ROLE_NETWORK, schemas.Role_ROLE_AGENT_APPLICATION:
		return classesOfSpray
	case schemas.Role_ROLE_APPLICATION:
		return classApplication
	case schemas.Role_ROLE_POLICY:
		return classPolicy
	case schemas.Role_ROLE_TENANT:
		return classesOfTenant
	}
	return 0
}

// name gives a group what incidents call it.
func (e *Engine) name(n *entity, rec *schemas.SignIn, policy *schemas.Policy) {
	texts := &e.entities.texts
	n.tenant = texts.holdWhole(rec.TenantId)
	switch n.role {
	case schemas.Role_ROLE_ADDRESS:
		if prefix, ok := AddressPrefix(rec.IpAddress); ok && prefix.Addr().Is6() {
			n.name = texts.hold(prefix.String())
		} else if ok {
			n.name = texts.hold(prefix.Addr().String())
		}
	case schemas.Role_ROLE_NETWORK:
		n.name = texts.hold("AS" + e.classifier.codeText(int32(rec.AutonomousSystemNumber)))
	case schemas.Role_ROLE_AGENT_APPLICATION:
		n.name, n.detail = texts.hold(rec.UserAgent), texts.hold(applicationName(rec))
	case schemas.Role_ROLE_APPLICATION:
		n.name = texts.hold(applicationName(rec))
	case schemas.Role_ROLE_POLICY:
		n.name = texts.hold(policyName(policy))
	case schemas.Role_ROLE_TENANT:
		n.name = texts.holdWhole(rec.TenantId)
	}
}

func applicationName(rec *schemas.SignIn) string { return firstNamed(rec.AppDisplayName, rec.AppId) }

// take puts a record into an entity: as an event, as a right password, or as neither where a newer version of it is none
// any more. It judges the stories that it touches and reports whether anything changed.
func (e *Engine) take(n *entity, rec *schemas.SignIn, eventTime int64, hash, actor uint64, c class, isEvent, isPass bool, received int64, revision uint64, out *Rows) bool {
	s := &e.entities
	size := n.size()
	eventTime = min(max(eventTime, -maxEventTime), maxEventTime)
	changed := false
	touched := class(0)
	added := -1 // position of a new event
	at := s.findEvent(n, rec.RequestId, hash)
	switch {
	case at >= 0 && isEvent:
		// Counted already: the newer version of the record only brings its words.
		v := &n.events[at]
		now := s.newEvent(rec, v.time, hash, actor, c, n.group())
		touched = v.class | c
		now.incidents = v.incidents
		s.releaseEvent(v)
		*v = now
	case at >= 0:
		touched = n.events[at].class
		s.removeEvent(n, at)
		changed = true
	case isEvent:
		v := s.newEvent(rec, eventTime, hash, actor, c, n.group())
		if i := s.sameTry(n, &v, e.settings.Of(rec.TenantId)); i >= 0 {
			e.stats.EventsRepeated++
			old := &n.events[i]
			if compareEvents(v, *old) >= 0 {
				s.releaseEvent(&v)
				break
			}
			// The earlier one stands for the series, whichever came first. It becomes a member of the incident below.
			s.removeEvent(n, i)
			s.addEvent(n, v)
			touched, changed = c, true
			break
		}
		if added = s.addEvent(n, v); added < 0 {
			e.stats.EventsTooLate++
		} else {
			e.stats.Events++
			touched, changed = c, true
		}
	}
	at = s.findPass(n, rec.RequestId, hash)
	switch {
	case at >= 0 && isPass:
		p := &n.passes[at]
		now := s.newPass(rec, p.time, hash, actor, c, n.group())
		now.incident = p.incident
		if now.class != p.class {
			touched |= classesOfPasses(n.role)
		}
		s.releasePass(p)
		*p = now
	case at >= 0:
		touched |= classesOfPasses(n.role)
		s.removePass(n, at)
		changed = true
	case isPass:
		if i := s.addPass(n, s.newPass(rec, eventTime, hash, actor, c, n.group()), &e.counter); i >= 0 {
			if changed || !e.bystander(n, &n.passes[i]) {
				touched |= classesOfPasses(n.role)
				added = -1
			}
			changed = true
		}
	}
	if touched.has(classWrong | classLegacy) {
		touched |= classLegacyStop // a wrong password before a blocked right one decides what that means
	}
	if touched != 0 {
		for i := range families {
			if f := &families[i]; f.roles.Has(n.role) && touched.any(f.belongs) && touched.has(f.needs) &&
				(added < 0 || !e.follow(n, uint8(i), added, revision, out)) {
				e.judge(n, uint8(i), eventTime, rec.ErrorCode, revision, out)
			}
		}
	}
	s.touch(n, size, received)
	return changed
}

// bystander reports whether a new right password of a group changes no story: its user has no event there, or has got in since
// the last one, so that it only speaks for the place. Then it opens no incident, and one that was told has heard as much already
// where right passwords are so many that some were let go, unless it is someone else's with the user agent of an event.
func (e *Engine) bystander(n *entity, p *pass) bool {
	if !n.group() {
		return false
	}
	failed, last, sameAgent := false, int64(0), false
	for i := range n.events {
		v := &n.events[i]
		if v.actor == p.actor && (!failed || notAfter(v.time, p.time)) {
			failed, last = true, v.time
		}
		sameAgent = sameAgent || v.agent == p.agent
	}
	if failed && !slices.ContainsFunc(n.passes, func(x pass) bool {
		return x.actor == p.actor && x.class == p.class && comparePasses(x, *p) < 0 && notAfter(last, x.time)
	}) {
		return false
	}
	if n.crowded && (failed || !sameAgent || slices.ContainsFunc(n.passes, func(x pass) bool {
		return x.agent == p.agent && x.actor != p.actor && x.incident == 0 && x.class.has(classSuccess) && !n.failed(x.actor)
	})) {
		return true
	}
	th := &e.settings.Of(e.entities.texts.text(n.tenant)).Thresholds
	for i := range families {
		if f := &families[i]; f.roles.Has(n.role) && n.incidentAt(uint8(i), 0, p.time, f.quiet(th)) != nil {
			return false
		}
	}
	return true
}

// classesOfPasses returns the events whose stories a right password may change.
func classesOfPasses(role schemas.Role) class {
	switch role {
	case schemas.Role_ROLE_USER: // all of them count the successes meanwhile
		return classCounts | classLegacy | classLegacyStop | classDeviceCode
	case schemas.Role_ROLE_SERVICE_PRINCIPAL:
		return classWrongSecret | classExpired
	}
	return classesOfSpray
}

// sameTry returns the position of an event that v only repeats, -1 where there is none. A client without a person repeats
// what was refused at every refresh of its token: equal refusals within the window of repeated failures are one. Equal wrong
// passwords are one within seconds, as a client tries again; guesses that go on longer count. Secrets of workloads always count.
func (s *entities) sameTry(n *entity, v *event, tenant *TenantSettings) int {
	if n.role != schemas.Role_ROLE_USER || !v.class.has(classSilent|classCounts) {
		return -1
	}
	reach := tenant.Thresholds.RepeatedFailures.Window.Microseconds()
	if v.class.any(classWrong | classLocked | classBadAddress) {
		reach = sameTry
	}
	for i := n.after(v.time - reach); i < len(n.events) && n.events[i].time < v.time+reach; i++ {
		x := &n.events[i]
		if x.class.has(classSilent) && x.code == v.code && x.app == v.app && x.address == v.address && x.clientApp == v.clientApp &&
			x.agent == v.agent && x.device == v.device {
			return i
		}
	}
	return -1
}

// forget takes a failure back that no longer counts.
func (e *Engine) forget(key uint64, requestID string, hash uint64) bool {
	n := e.entities.get(key)
	if n == nil {
		return false
	}
	i := e.entities.findEvent(n, requestID, hash)
	if i < 0 {
		return false
	}
	size := n.size()
	e.entities.removeEvent(n, i)
	e.entities.touch(n, size, 0)
	return true
}

// Top returns the entities with the most events, most first, for operators.
func (e *Engine) Top(limit int) []TopEntity {
	var best []*entity
	for l := range e.entities.lists {
		for i := e.entities.lists[l].newest; i >= 0; i = e.entities.slots[i].older {
			n := &e.entities.slots[i]
			if len(best) == limit && weight(n) <= weight(best[limit-1]) {
				continue
			}
			at, _ := slices.BinarySearchFunc(best, n, func(a, b *entity) int { return int(weight(b) - weight(a)) })
			best = slices.Insert(best, at, n)
			best = best[:min(len(best), limit)]
		}
	}
	top := make([]TopEntity, 0, len(best))
	for _, n := range best {
		t := e.entities.top(n)
		t.Kind, t.Value, t.TenantID = strings.Clone(t.Kind), strings.Clone(t.Value), strings.Clone(t.TenantID)
		top = append(top, t)
	}
	return top
}

func weight(n *entity) int64 { return int64(len(n.events)) + n.counted() }
