package sinks

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/signindiag/signindiag/detectors"
)

// Bounds of one request to a receiver of alerts.
const (
	// alertRequestTimeout bounds a request with its answer.
	alertRequestTimeout = 10 * time.Second
	// maxAnswer is how much of an answer is read, and maxAnswerText how much of it is told, bytes.
	maxAnswer     = 4 << 10
	maxAnswerText = 200
)

// receiver is where incidents are sent: it says what it has to be told of one, and takes it.
type receiver interface {
	// name is stable over restarts: the progress is kept under it. It holds no secret.
	name() string
	// plan says what to tell of an incident at now, given what was acknowledged before (version 0: nothing), and what
	// is acknowledged then. An empty list of parts means that there is nothing to tell. The incident is nil where its row is
	// gone.
	plan(i *detectors.Incident, have delivery, now time.Time) (parts [][]byte, next delivery)
	// perRequest is how many incidents one call of send may take.
	perRequest() int
	// send delivers all messages or returns a *deliveryError.
	send(ctx context.Context, messages []message) error
}

// message is what a receiver is told of one incident.
type message struct {
	id    string // names the revision of the incident
	parts [][]byte
}

// Values of deliveryError.reason, the metric label.
const (
	reasonUnreachable  = "unreachable"
	reasonUnauthorized = "unauthorized"
	reasonAddress      = "address"
	reasonBusy         = "busy"
	reasonServer       = "server"
	reasonRefused      = "refused"
	reasonClickHouse   = "clickhouse"
)

// deliveryError tells why a receiver did not take a request, and what to do.
type deliveryError struct {
	reason string
	text   string
	advice string
}

func (e *deliveryError) Error() string { return e.text + ": " + e.advice }

// refusedContent reports whether an error concerns what was sent rather than the receiver as a whole.
func refusedContent(err error) bool {
	var e *deliveryError
	return errors.As(err, &e) && e.reason == reasonRefused
}

// poster sends JSON to one address. Its address may hold a secret and stands in no error; its title does.
type poster struct {
	title  string
	url    string
	client *http.Client
	// variables names what to look at when the receiver does not let us in, or is not there.
	variables string
	// tellAnswer is whether errors quote the answer. It may repeat what was sent.
	tellAnswer bool
}

// newPoster returns a poster for an http or https address.
func newPoster(title, address, variables string, settings *tls.Config) (*poster, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		// The parser's error repeats the address.
		return nil, fmt.Errorf("%s: expected an address such as https://alerts.example.org, see %s", title, variables)
	}
	if u.User != nil {
		return nil, fmt.Errorf("%s: expected an address without user name and password, see %s", title, variables)
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: alertRequestTimeout}).DialContext,
		TLSClientConfig:     settings.Clone(), // the transport changes it
		TLSHandshakeTimeout: alertRequestTimeout,
		MaxIdleConns:        2,
		IdleConnTimeout:     time.Minute,
		ForceAttemptHTTP2:   true,
	}
	return &poster{title: title, url: address, variables: variables, client: &http.Client{
		Transport: transport,
		Timeout:   alertRequestTimeout,
		// A redirected POST becomes a GET for most codes, and would be taken for a success.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// post returns nil when the answer is 2xx, else a *deliveryError.
func (p *poster) post(ctx context.Context, body []byte, header func(http.Header)) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return &deliveryError{reasonAddress, p.title + " cannot be asked", "check " + p.variables}
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "signindiag")
	header(request.Header)
	response, err := p.client.Do(request)
	if err != nil {
		var withAddress *url.Error
		if errors.As(err, &withAddress) {
			err = withAddress.Err
		}
		return &deliveryError{reasonUnreachable, fmt.Sprintf("%s does not answer (%v)", p.title, err), "check that it runs and " + p.variables}
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer)) // the status has told what matters
	if response.StatusCode >= 200 && response.StatusCode < 300 {
		return nil
	}
	text := fmt.Sprintf("%s answers %s", p.title, response.Status)
	if told := strings.Join(strings.Fields(string(answer)), " "); p.tellAnswer && told != "" {
		text += fmt.Sprintf(" (%s)", strings.ToValidUTF8(told[:min(len(told), maxAnswerText)], ""))
	}
	switch code := response.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusProxyAuthRequired:
		return &deliveryError{reasonUnauthorized, text, "check the user name, password, token or secret in " + p.variables}
	case code < 400:
		return &deliveryError{reasonAddress, text, "it is elsewhere: give the address that it redirects to in " + p.variables}
	case code == http.StatusNotFound, code == http.StatusMethodNotAllowed, code == http.StatusGone:
		return &deliveryError{reasonAddress, text, "check the path in " + p.variables}
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests:
		return &deliveryError{reasonBusy, text, "it is sent again later; ask for a higher limit there if this goes on"}
	case code < 500:
		return &deliveryError{reasonRefused, text, "it does not accept this content, other incidents go on; look at its log"}
	default:
		return &deliveryError{reasonServer, text, "look at its log"}
	}
}

func (p *poster) close() { p.client.CloseIdleConnections() }
