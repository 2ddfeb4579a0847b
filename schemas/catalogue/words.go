package catalogue

import (
	"strconv"
	"strings"
)

// Words turns values of the log into what sentences say: tokens into words for people, names into quoted names. Evidence
// keeps the value as it is. A nil Words leaves every value as it is. It is immutable and safe for concurrent use.
type Words struct {
	// Name is the vocabulary's name in words.yaml.
	Name string
	// quote puts values that have no word between quotation marks.
	quote  bool
	exact  map[string]string
	tokens []string // of exact, sorted: the log's spelling varies in case
}

// Append appends the word for a token, or the token itself where there is none: what Entra names tomorrow is shown, not
// hidden. It allocates nothing but the growth of dst.
func (w *Words) Append(dst []byte, token string) []byte {
	if w == nil {
		return append(dst, token...)
	}
	if word := w.word(token); word != "" {
		return append(dst, word...)
	}
	if w.quote {
		return append(append(append(dst, '"'), token...), '"')
	}
	return append(dst, token...)
}

// word returns the word for a token, or "".
func (w *Words) word(token string) string {
	if w == nil || len(w.exact) == 0 {
		return ""
	}
	if word, ok := w.exact[token]; ok {
		return word
	}
	for _, t := range w.tokens {
		if strings.EqualFold(t, token) {
			return w.exact[t]
		}
	}
	return ""
}

// same reports whether two values of a list read the same, so that one of them is enough.
func (w *Words) same(a, b string) bool {
	if a == b {
		return true
	}
	word := w.word(a)
	return word != "" && word == w.word(b)
}

// ListLimit is how many values of a list a sentence names before it says how many more there are.
const ListLimit = 3

// AppendList appends a list as people write it: "a", "a and b", "a, b and c", "a, b, c and 4 more". Values that
// read the same are named once.
func (w *Words) AppendList(dst []byte, list []string) []byte {
	distinct := 0
	for i := range list {
		if !w.repeats(list, i) {
			distinct++
		}
	}
	n := 0
	for i := range list {
		if w.repeats(list, i) {
			continue
		}
		switch {
		case n == 0:
		case n == ListLimit:
			dst = append(dst, " and "...)
			dst = strconv.AppendInt(dst, int64(distinct-n), 10)
			return append(dst, " more"...)
		case n == distinct-1:
			dst = append(dst, " and "...)
		default:
			dst = append(dst, ", "...)
		}
		dst = w.Append(dst, list[i])
		n++
	}
	return dst
}

// repeats reports whether an earlier value of the list reads as the i-th does.
func (w *Words) repeats(list []string, i int) bool {
	for j := range i {
		if w.same(list[j], list[i]) {
			return true
		}
	}
	return false
}
