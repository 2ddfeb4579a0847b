package catalogue

import "slices"

// overlayFile is a file of the operator's that changes the catalogue.
type overlayFile struct {
	name string
	data []byte
}

// overlaySections are what an overlay may hold.
var overlaySections = []struct {
	name string
	// entry is what an entry is called, fields what it may hold.
	entry  string
	fields []string
	// text is the field that an entry which is a text alone stands for; "" where an entry is a mapping.
	text string
	// fixed: code knows the entries by name, so that none can be added.
	fixed bool
}{
	{name: "codes", entry: "code", fields: codeColumns[1:]},
	{name: "scenarios", entry: "scenario", fields: []string{"title", "definition", "severity", "summary", "note", "actions", "links"}, fixed: true},
	{name: "incidents", entry: "incident", fields: []string{"title", "definition", "severity", "summary", "actions", "links"}, fixed: true},
	{name: "actions", entry: "action", fields: []string{"text", "role"}},
	{name: "roles", entry: "role", text: "title"},
	{name: "links", entry: "link", fields: []string{"title", "url", "when"}},
	{name: "words", entry: "vocabulary", fields: []string{"words"}, fixed: true},
	{name: "unknowns", entry: "text of what a record does not tell", text: "text", fixed: true},
	{name: "sentences", entry: "sentence", text: "text", fixed: true},
}

// fromOverlay reports whether at lies in the overlay.
func (p *parser) fromOverlay(at place) bool { return p.overlay != nil && at.file == p.overlay.name }

// layOver reads the overlay and lays its entries over those of the embedded files. Every value keeps its place, so that what is
// found wrong later names the file and the line that it comes from.
func (p *parser) layOver() {
	content := p.readYAML(p.overlay.name, p.overlay.data)
	if content == nil || content.kind == empty || content.kind == refused {
		return
	}
	names := []string{}
	for _, s := range overlaySections {
		names = append(names, s.name)
	}
	if content.kind != mapping {
		p.fail(content.at, "the file holds %s: expected the sections %s", kindNames[content.kind], orList(names))
		return
	}
	for _, name := range content.keys {
		i := slices.Index(names, name)
		if i < 0 {
			p.fail(content.get(name).at, "unknown section %q: expected %s", name, orList(names))
			continue
		}
		p.layOverSection(i, content.get(name))
	}
}

func (p *parser) layOverSection(i int, over *value) {
	section := overlaySections[i]
	base := p.sections[section.name]
	switch over.kind {
	case empty, refused:
		return
	case mapping:
	default:
		p.fail(over.at, "%s: is %s: expected entries as NAME: ..., indented below", section.name, kindNames[over.kind])
		return
	}
	for _, name := range over.keys {
		entry, known := over.get(name), base.get(name)
		if known == nil && section.fixed {
			p.fail(entry.at, "unknown %s %q, and none can be added%s", section.entry, name, choices(name, base.keys, base.at.file))
			continue
		}
		// A code's number is checked where codes are made.
		if known == nil && section.name != "codes" && !p.validName(entry.at, name) {
			continue
		}
		if entry.kind == refused {
			continue
		}
		if section.text != "" {
			if entry.kind != scalar {
				p.fail(entry.at, "%s: is %s: expected its %s", name, kindNames[entry.kind], section.text)
				continue
			}
			text := entry
			entry = &value{at: text.at, kind: mapping}
			entry.set(section.text, text)
		} else if !p.checkEntry(section.entry, name, entry, section.fields) {
			continue
		}
		if known == nil {
			base.set(name, entry)
		} else {
			merge(known, entry)
		}
	}
}

// checkEntry checks that an entry is a mapping of fields that may be changed, and takes the others away.
func (p *parser) checkEntry(what, name string, entry *value, fields []string) bool {
	if entry.kind == empty { // nothing is changed, or everything is missing
		entry.kind = mapping
	}
	if entry.kind != mapping {
		p.fail(entry.at, "%s %s: is %s: expected its fields, such as %s: ..., indented below", what, name, kindNames[entry.kind], fields[0])
		return false
	}
	for _, key := range slices.Clone(entry.keys) {
		if !slices.Contains(fields, key) {
			p.fail(entry.get(key).at, "%s %s: field %q cannot be set: expected %s", what, name, key, orList(fields))
			entry.remove(key)
		}
	}
	return true
}
