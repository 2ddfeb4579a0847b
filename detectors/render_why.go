package detectors

import "github.com/signindiag/signindiag/schemas/catalogue"

// Why returns the reasons behind a diagnosis as sentences, made of the evidence that a viewer with the given
// capabilities may see. They are those of the section Why of WriteText.
func (r Renderer) Why(d *Diagnosis, capabilities catalogue.Capability) []string {
	v := values{cat: r.Catalogue, d: d, capabilities: capabilities}
	var sentences []string
	var buf []byte
	for _, name := range catalogue.WhySentences {
		buf, _ = catalogue.Render(r.Catalogue.Sentence(name), buf[:0], v)
		if len(buf) > 0 {
			sentences = append(sentences, string(buf))
		}
	}
	return sentences
}
