package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/detectors/inmemory"
	"github.com/signindiag/signindiag/lookup"
	"github.com/signindiag/signindiag/schemas/exports"
)

const (
	// tuneRecentBytes and tuneStateBytes bound what each of the two engines keeps when it reads ClickHouse: that of some shards
	// together, since each engine sees all records.
	tuneRecentBytes = 256 << 20
	tuneStateBytes  = 512 << 20
	// tuneLead is how long before --from reading begins, so that the windows are whole there.
	tuneLead = detectors.MaxFailureWindow
	// tuneMissing is the share of records without their text from which on tune says so; the counts are good to 2 %.
	tuneMissing = 0.05
)

type tuneCommand struct {
	Files      []string `arg:"" optional:"" help:"Exported logs, as for explain; - reads standard input."`
	Thresholds string   `required:"" help:"Settings file with the thresholds to try: what would be if it were in force." placeholder:"FILE" type:"path"`
	From       string   `help:"Instead of files: what ClickHouse holds of sign-ins from this time on (RFC 3339 or a date)." placeholder:"TIME"`
	To         string   `help:"With --from: until this time (default: now)." placeholder:"TIME"`
	storeFlags
	catalogueFlag
	settingsFlag
}

// Validate implements kong's check of the command line.
func (c tuneCommand) Validate() error {
	switch {
	case c.From == "" && len(c.Files) == 0:
		return errors.New("name exported logs (- for standard input), or --from TIME for what ClickHouse holds")
	case c.From != "" && len(c.Files) > 0:
		return errors.New("name exported logs or --from, not both")
	case c.To != "" && c.From == "":
		return errors.New("--to belongs to --from")
	case c.From != "":
		_, _, err := c.span(time.Now())
		return err
	}
	return nil
}

// span returns the event times that --from and --to name.
func (c tuneCommand) span(now time.Time) (from, to time.Time, err error) {
	if from, err = lookup.ParseTime(c.From); err != nil {
		return from, to, fmt.Errorf("--from: %w", err)
	}
	to = now.UTC()
	if c.To != "" {
		if to, err = lookup.ParseTime(c.To); err != nil {
			return from, to, fmt.Errorf("--to: %w", err)
		}
	}
	if !to.After(from) {
		return from, to, fmt.Errorf("--to %s is not after --from %s", to.Format(time.RFC3339), from.Format(time.RFC3339))
	}
	return from, to, nil
}

// Run judges the same records by the settings in force and by others, and prints which incidents are gained and lost.
func (c tuneCommand) Run(ctx context.Context, std streams) error {
	configuration, err := c.configure(ctx)
	if err != nil {
		return err
	}
	var store opened
	if c.From != "" {
		if store, err = c.open(ctx); err != nil {
			return err
		}
		defer store.close()
		configuration.Settings.File = store.settings
	}
	now, err := c.loadSettings(configuration)
	if err != nil {
		return err
	}
	then, err := settingsConfig{File: c.Thresholds}.load()
	if err != nil {
		return err
	}
	t := tuning{std: std, thresholds: thresholdChanges(now, then)}
	if otherSettings(now, then) {
		fmt.Fprintf(std.err, "%s differs from what is in force in more than thresholds; the comparison holds all of it\n", c.Thresholds)
	}
	if c.From != "" {
		err = t.fromStore(ctx, c, store, now, then)
	} else {
		err = t.fromFiles(ctx, c.Files, configuration.Catalogue, now, then)
	}
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(std.out, 1<<16)
	if c.Format == "json" {
		err = t.writeJSON(out)
	} else {
		err = t.writeText(out)
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("write the comparison: %w", err)
	}
	if t.broken > 0 {
		return errFailed
	}
	return nil
}

// tuning is one comparison.
type tuning struct {
	std        streams
	renderer   detectors.Renderer
	thresholds []thresholdChange
	records    int
	broken     int
	now, then  []tuneStory
	lines      []tuneLine
}

// runners makes the two engines; what the first applies, the second does too.
func (t *tuning) runners(options detectors.Options, now, then *detectors.Settings) (first, second *inmemory.Runner, err error) {
	t.renderer = detectors.Renderer{Catalogue: options.Catalogue}
	options.Epoch = 1
	options.Settings = now
	if first, err = inmemory.New(options); err != nil {
		return nil, nil, err
	}
	options.Settings = then
	if second, err = inmemory.New(options); err != nil {
		return nil, nil, err
	}
	first.KeepIncidentsOnly()
	second.KeepIncidentsOnly()
	second.Follow(first)
	return first, second, nil
}

func (t *tuning) fromFiles(ctx context.Context, files []string, cc catalogueConfig, now, then *detectors.Settings) error {
	cat, err := cc.load()
	if err != nil {
		return err
	}
	first, second, err := t.runners(detectors.Options{Catalogue: cat, RecentBytes: explainRecentBytes}, now, then)
	if err != nil {
		return err
	}
	received := time.Now() // as explain does it
	bad, err := readFiles(ctx, t.std, files, func(item exports.Item, file string) error {
		first.Hold(item.Value, received, func(_ int, err error) {
			t.broken++
			fmt.Fprintln(t.std.err, oneLine(fmt.Sprintf("%s:%d: %v", file, item.Line, err)))
		})
		return nil
	})
	t.broken += bad
	if err != nil {
		return err
	}
	if err := first.Release(); err != nil {
		return err
	}
	t.records = first.Counts().SignIns
	t.compare(first.Result(), second.Result(), time.Time{})
	return nil
}

func (t *tuning) fromStore(ctx context.Context, c tuneCommand, o opened, now, then *detectors.Settings) error {
	from, to, err := c.span(time.Now())
	if err != nil {
		return err
	}
	cat := o.renderer.Catalogue
	if c.Catalogue != "" { // goes before that of the running system
		if cat, err = c.catalogueFlag.load(ctx); err != nil {
			return err
		}
	}
	held, err := o.store.RawRange(ctx, from, to)
	if err != nil {
		return err
	}
	switch {
	case held.Diagnosed == 0 && held.Records == 0:
		return fmt.Errorf("ClickHouse holds no sign-in from %s to %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	case held.Records == 0:
		return fmt.Errorf("ClickHouse holds about %s of that time, and none as received, which tune reads: %[2]sCLICKHOUSE_RAW_RECORDS is false, or %[2]sCLICKHOUSE_RAW_RETENTION_DAYS has let them go; name exported logs instead",
			plural(int(held.Diagnosed), "diagnosed record"), envPrefix)
	case float64(held.Records) < (1-tuneMissing)*float64(held.Diagnosed):
		fmt.Fprintf(t.std.err, "of about %d records of that time only %d are held as received: incidents of the others are missing on both sides\n", held.Diagnosed, held.Records)
	}
	first, second, err := t.runners(detectors.Options{Catalogue: cat, RecentBytes: tuneRecentBytes, StateBytes: tuneStateBytes}, now, then)
	if err != nil {
		return err
	}
	n := 0
	err = o.store.EachRaw(ctx, from.Add(-tuneLead), to, func(record []byte, eventTime time.Time) error {
		// As if every record had been received at once: then the engine's memory ends by the age of the sign-ins,
		// also where older logs were imported later.
		first.Feed(record, eventTime, func(_ int, err error) {
			t.broken++
			fmt.Fprintln(t.std.err, oneLine(fmt.Sprintf("a record of %s: %v", eventTime.UTC().Format(time.RFC3339), err)))
		})
		if n++; n%256 == 0 && ctx.Err() != nil {
			return fmt.Errorf("stopped while reading the records as received: %w", ctx.Err())
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.records = first.Counts().SignIns
	t.compare(first.Result(), second.Result(), from)
	return nil
}

// tuneStory is an incident with the records that belong to it.
type tuneStory struct {
	incident detectors.Incident
	records  map[string]bool // request ids
	other    int             // position of the same story on the other side, -1 for none
	with     int             // where there is none, position of the one that tells some of the same records, -1 for none
}

// tuneLine is one difference.
type tuneLine struct {
	// Type is gained, lost, changed (another kind or severity), united (an incident of now that is told with another one then)
	// or split (an incident of then that is told with another one now).
	Type string `json:"type"`
	// Records is how many records belong to the incident.
	Records  int                      `json:"records"`
	Incident detectors.IncidentReport `json:"incident"`
	// Was is a changed incident as it is now.
	Was *detectors.IncidentReport `json:"was,omitempty"`
	// With is the id of the incident of the other side that an united or split one is told with.
	With string `json:"with,omitempty"`
	with *detectors.Incident
}

// tuneKind are the numbers of one kind: Then is Now with Gained and Split, without Lost and United, but for incidents that change
// their kind, which are counted as Changed at both.
type tuneKind struct {
	Kind    string `json:"kind"`
	Now     int    `json:"now"`
	Then    int    `json:"then"`
	Gained  int    `json:"gained"`
	Lost    int    `json:"lost"`
	Changed int    `json:"changed"`
	United  int    `json:"united"`
	Split   int    `json:"split"`
}

// stories returns the incidents that were under way at or after from, with their records.
func stories(r inmemory.Result, from time.Time) []tuneStory {
	type key struct{ tenant, id string }
	records := map[key]map[string]bool{}
	for i := range r.Members {
		m := &r.Members[i]
		k := key{m.TenantID, m.IncidentID}
		if records[k] == nil {
			records[k] = map[string]bool{}
		}
		records[k][m.RequestID] = true
	}
	var list []tuneStory
	for i := range r.Incidents {
		incident := &r.Incidents[i]
		if !from.IsZero() && incident.LastSeen < from.UnixMicro() {
			continue
		}
		list = append(list, tuneStory{*incident, records[key{incident.TenantID, incident.IncidentID}], -1, -1})
	}
	return list
}

// tuneMatch says that two incidents tell of the same records.
type tuneMatch struct {
	now, then int
	rank      int // the less the better
	shared    int
}

// compare finds out which incidents are the same story on both sides, whatever their ids: they share records, and a kind is
// found in both. Of several, the one of the same kind and entity goes first, then that with the most records.
func (t *tuning) compare(now, then inmemory.Result, from time.Time) {
	t.now, t.then = stories(now, from), stories(then, from)
	type record struct{ tenant, request string }
	holders := map[record][]int{}
	for i := range t.now {
		for id := range t.now[i].records {
			r := record{t.now[i].incident.TenantID, id}
			holders[r] = append(holders[r], i)
		}
	}
	var matches []tuneMatch
	for j := range t.then {
		b := &t.then[j].incident
		shared := map[int]int{}
		for id := range t.then[j].records {
			for _, i := range holders[record{b.TenantID, id}] {
				shared[i]++
			}
		}
		for i, n := range shared {
			a := &t.now[i].incident
			if !slices.ContainsFunc(kindsOf(a), func(kind string) bool { return slices.Contains(kindsOf(b), kind) }) {
				continue
			}
			rank := 0
			if a.EntityKind != b.EntityKind || a.EntityValue != b.EntityValue {
				rank += 2
			}
			if a.Kind != b.Kind {
				rank++
			}
			matches = append(matches, tuneMatch{i, j, rank, n})
		}
	}
	slices.SortFunc(matches, func(a, b tuneMatch) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(b.shared, a.shared), cmp.Compare(a.now, b.now), cmp.Compare(a.then, b.then))
	})
	for _, m := range matches {
		a, b := &t.now[m.now], &t.then[m.then]
		if a.other < 0 && b.other < 0 {
			a.other, b.other = m.then, m.now
		}
	}
	for _, m := range slices.Backward(matches) {
		t.now[m.now].with, t.then[m.then].with = m.then, m.now
	}
	t.lines = t.differences()
}

func kindsOf(i *detectors.Incident) []string { return append([]string{i.Kind}, i.Also...) }

// differences lists what is gained, lost, changed, united and split, each in the order of the first event.
func (t *tuning) differences() (lines []tuneLine) {
	add := func(kind string, s *tuneStory, others []tuneStory) {
		l := tuneLine{Type: kind, Records: len(s.records), Incident: t.renderer.IncidentReport(&s.incident)}
		if s.other >= 0 {
			was := t.renderer.IncidentReport(&others[s.other].incident)
			l.Was = &was
		} else if s.with >= 0 {
			l.with = &others[s.with].incident
			l.With = l.with.IncidentID
		}
		lines = append(lines, l)
	}
	for _, kind := range []string{"gained", "lost", "changed", "united", "split"} {
		for i := range t.now {
			if t.nowType(i) == kind {
				add(kind, &t.now[i], t.then)
			}
		}
		for j := range t.then {
			if t.thenType(j) == kind {
				add(kind, &t.then[j], t.now)
			}
		}
	}
	return lines
}

// nowType is the type of the difference that an incident of now makes, empty for none; a changed one is counted at then.
func (t *tuning) nowType(i int) string {
	switch s := &t.now[i]; {
	case s.other >= 0:
		return ""
	case s.with >= 0:
		return "united"
	}
	return "lost"
}

func (t *tuning) thenType(j int) string {
	switch s := &t.then[j]; {
	case t.changed(j):
		return "changed"
	case s.other >= 0:
		return ""
	case s.with >= 0:
		return "split"
	}
	return "gained"
}

// changed reports whether an incident has another kind or severity than the same story now.
func (t *tuning) changed(j int) bool {
	if t.then[j].other < 0 {
		return false
	}
	a, b := &t.now[t.then[j].other].incident, &t.then[j].incident
	return a.Kind != b.Kind || a.Severity != b.Severity
}

func (k *tuneKind) count(difference string) {
	switch difference {
	case "gained":
		k.Gained++
	case "lost":
		k.Lost++
	case "changed":
		k.Changed++
	case "united":
		k.United++
	case "split":
		k.Split++
	}
}

// kinds sums up by kind, in the order of the names.
func (t *tuning) kinds() []tuneKind {
	list := []tuneKind{}
	of := func(name string) *tuneKind {
		i, found := slices.BinarySearchFunc(list, name, func(k tuneKind, name string) int { return cmp.Compare(k.Kind, name) })
		if !found {
			list = slices.Insert(list, i, tuneKind{Kind: name})
		}
		return &list[i]
	}
	for i := range t.now {
		k := of(t.now[i].incident.Kind)
		k.Now++
		k.count(t.nowType(i))
	}
	for j := range t.then {
		k := of(t.then[j].incident.Kind)
		k.Then++
		k.count(t.thenType(j))
		if other := t.then[j].other; other >= 0 && t.now[other].incident.Kind != k.Kind {
			of(t.now[other].incident.Kind).Changed++
		}
	}
	return list
}

// tuneSummary is the last line of the JSON form.
type tuneSummary struct {
	Type       string            `json:"type"`
	Records    int               `json:"records"`
	Thresholds []thresholdChange `json:"thresholds"`
	Kinds      []tuneKind        `json:"kinds"`
}

func (t *tuning) writeJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	for i := range t.lines {
		if err := encoder.Encode(&t.lines[i]); err != nil {
			return err
		}
	}
	return encoder.Encode(tuneSummary{"summary", t.records, t.thresholds, t.kinds()})
}

func (t *tuning) writeText(w io.Writer) error {
	for _, c := range t.thresholds {
		tenant := ""
		if c.TenantID != "" {
			tenant = ", tenant " + c.TenantID
		}
		fmt.Fprintf(w, "%s %s -> %s%s\n", c.Threshold, c.Now, c.Then, tenant)
	}
	if len(t.thresholds) == 0 {
		fmt.Fprintln(w, "The thresholds are those in force.")
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "\nnow\tthen\tgained\tlost\tchanged\tunited\tsplit\t  kind\n")
	row := func(k tuneKind) {
		fmt.Fprintf(table, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t  %s\n", k.Now, k.Then, k.Gained, k.Lost, k.Changed, k.United, k.Split, k.Kind)
	}
	for _, k := range t.kinds() {
		row(k)
	}
	total := tuneKind{Kind: "all", Now: len(t.now), Then: len(t.then)}
	for i := range t.lines {
		total.count(t.lines[i].Type)
	}
	row(total)
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for i := range t.lines {
		fmt.Fprintln(w, t.lines[i].text())
	}
	if len(t.lines) == 0 {
		fmt.Fprintf(w, "Nothing changes: the same incidents come of %s.\n", plural(t.records, "sign-in record"))
	}
	return nil
}

// text is the difference in one line.
func (l *tuneLine) text() string {
	i := &l.Incident
	kind, severity := i.Kind, i.Severity
	if l.Was != nil && l.Was.Kind != i.Kind {
		kind = l.Was.Kind + " -> " + i.Kind
	}
	if l.Was != nil && l.Was.Severity != i.Severity {
		severity = l.Was.Severity + " -> " + i.Severity
	}
	users := len(i.Users)
	for _, c := range i.Counts {
		if c.Name == "users" {
			users = max(users, int(c.Value)) // the list is bounded
		}
	}
	text := fmt.Sprintf("%-7s  %s  %s  %s  %s  %s  %s  tenant %s", l.Type, kind, severity, entityText(i.Entity), plural(users, "user"), i.FirstSeen,
		plural(l.Records, "record"), i.TenantID)
	if len(i.Also) > 0 {
		text += "  also " + strings.Join(i.Also, ", ")
	}
	if l.with != nil {
		when := map[string]string{"united": "then", "split": "now"}[l.Type]
		text += fmt.Sprintf("  %s told with %s of %s", when, l.with.Kind, entityText(detectors.Entity{Kind: l.with.EntityKind, Value: l.with.EntityValue}))
	}
	return text
}

// entityText names an entity. Its name comes from records, so what would disturb a terminal becomes a blank.
func entityText(e detectors.Entity) string {
	return e.Kind + " " + strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, e.Value)
}

// thresholdChange is one threshold that differs; TenantID is empty for all tenants without settings of their own.
type thresholdChange struct {
	TenantID  string `json:"tenant_id"`
	Threshold string `json:"threshold"`
	Now       string `json:"now"`
	Then      string `json:"then"`
}

// thresholdChanges lists what differs: first for all tenants, then what differs otherwise for single ones.
func thresholdChanges(now, then *detectors.Settings) []thresholdChange {
	list := []thresholdChange{}
	tenants := append([]string{""}, tenantsOf(now, then)...)
	for _, tenant := range tenants {
		a, b := now.Of(tenant).Thresholds, then.Of(tenant).Thresholds
		for _, f := range detectors.ThresholdFields() {
			c := thresholdChange{tenant, f.Detection + "." + f.Name, f.Text(&a), f.Text(&b)}
			general := thresholdChange{"", c.Threshold, c.Now, c.Then}
			if c.Now != c.Then && (tenant == "" || !slices.Contains(list, general)) {
				list = append(list, c)
			}
		}
	}
	return list
}

func tenantsOf(all ...*detectors.Settings) (ids []string) {
	for _, s := range all {
		for id := range s.Tenants {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// otherSettings reports whether anything but thresholds differs.
func otherSettings(now, then *detectors.Settings) bool {
	for _, tenant := range append([]string{""}, tenantsOf(now, then)...) {
		a, b := detectors.Settings{Default: *now.Of(tenant)}, detectors.Settings{Default: *then.Of(tenant)}
		b.Default.Thresholds = a.Default.Thresholds
		if a.Fingerprint() != b.Fingerprint() {
			return true
		}
	}
	return false
}
