package lookup

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/signindiag/signindiag/schemas/catalogue"
)

// Viewer says what the sender of a request may see. It returns ErrUnauthorized for credentials that are not valid,
// rather than what a request without any would get. It is called once per request and concurrently.
type Viewer interface {
	Capabilities(r *http.Request) (catalogue.Capability, error)
}

// ErrUnauthorized means that the credentials of a request are not valid.
var ErrUnauthorized = errors.New("the token is not valid")

// capabilityNames are the names of capabilities in configuration, as in the catalogue.
var capabilityNames = []struct {
	name       string
	capability catalogue.Capability
}{
	{"records", catalogue.CapabilityRecords},
	{"conditional_access", catalogue.CapabilityConditionalAccess},
	{"risk", catalogue.CapabilityRisk},
	{"raw", catalogue.CapabilityRaw},
}

// ParseCapabilities returns the set that names stand for. All of it needs records: a set without records sees nothing.
func ParseCapabilities(names []string) (catalogue.Capability, error) {
	var set catalogue.Capability
next:
	for _, name := range names {
		name = strings.TrimSpace(name)
		for _, known := range capabilityNames {
			if known.name == name {
				set |= known.capability
				continue next
			}
		}
		return 0, fmt.Errorf("capability %q: expected records, conditional_access, risk or raw", name)
	}
	return set, nil
}

// Token is a static bearer token and what its holder may see. The token itself is not kept.
type Token struct {
	hash         [sha256.Size]byte
	capabilities catalogue.Capability
}

// minTokenLength keeps out tokens that can be guessed, characters.
const minTokenLength = 16

// ParseTokens reads a list of tokens such as
//
//	3fGq0mZ1rX8vT2kP=records+conditional_access,Zk41...=records
//
// Names of capabilities follow the last equals sign. An error names the place of a token in the list, never the token.
func ParseTokens(list string) ([]Token, error) {
	var tokens []Token
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	for i, item := range strings.Split(list, ",") {
		item = strings.TrimSpace(item)
		at := strings.LastIndexByte(item, '=')
		if at < 0 {
			return nil, fmt.Errorf("token %d of the list: expected TOKEN=capability+capability", i+1)
		}
		if at < minTokenLength {
			return nil, fmt.Errorf("token %d of the list: expected at least %d characters before the equals sign", i+1, minTokenLength)
		}
		if strings.ContainsAny(item[:at], " \t\r\n") {
			return nil, fmt.Errorf("token %d of the list: expected no white space in it", i+1)
		}
		capabilities, err := ParseCapabilities(strings.Split(item[at+1:], "+"))
		if err != nil {
			// The text after the equals sign is the end of a token where somebody forgot the capabilities.
			return nil, fmt.Errorf("token %d of the list: expected capabilities (records, conditional_access, risk, raw) joined by + after the last equals sign", i+1)
		}
		tokens = append(tokens, Token{sha256.Sum256([]byte(item[:at])), capabilities})
	}
	return tokens, nil
}

// StaticViewer gives every request without a token the same capabilities, and requests with a bearer token those of
// the token. A request with an unknown token gets nothing.
type StaticViewer struct {
	Anonymous catalogue.Capability
	Tokens    []Token
}

// Capabilities implements Viewer.
func (v StaticViewer) Capabilities(r *http.Request) (catalogue.Capability, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return v.Anonymous, nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return 0, ErrUnauthorized
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(token)))
	var set catalogue.Capability
	known := 0
	for i := range v.Tokens {
		// Every token is compared, in the same time whether it fits or not.
		same := subtle.ConstantTimeCompare(hash[:], v.Tokens[i].hash[:])
		set |= v.Tokens[i].capabilities * catalogue.Capability(same)
		known |= same
	}
	if known == 0 {
		return 0, ErrUnauthorized
	}
	return set, nil
}

// mayReadRaw is what a raw record needs: it holds policies and risk beside everything else.
const mayReadRaw = catalogue.CapabilityRecords | catalogue.CapabilityRaw | catalogue.CapabilityConditionalAccess | catalogue.CapabilityRisk
