package lookup

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// contentSecurityPolicy allows what the pages bring themselves and nothing else; no inline script or style.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// secure sets the security headers, refuses hosts that are not ours and reads no bodies.
func (s *Server) secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		// Addresses of pages hold names of users and ids; no other site is to learn them.
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if s.loopback && !s.knownHost(r.Host) {
			writePlain(w, http.StatusMisdirectedRequest, fmt.Sprintf("this server answers to localhost and loopback addresses only, not to %q", r.Host))
			return
		}
		// No request of the API has a body.
		r.Body = http.MaxBytesReader(w, r.Body, 0)
		next.ServeHTTP(w, r)
	})
}

// knownHost reports whether a Host header names loopback or one of the configured names.
func (s *Server) knownHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		return true
	}
	return slices.ContainsFunc(s.config.Hosts, func(known string) bool { return strings.EqualFold(known, host) })
}

// recoverPanic answers 500 to a request whose handler panicked, and logs it: one request must not end the pipeline
// that shares the process.
func (s *Server) recoverPanic(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			s.log.Error("a request failed by a programming error", "method", r.Method, "pattern", r.Pattern, "panic", v, "stack", string(debug.Stack()))
			writePlain(w, http.StatusInternalServerError, "internal error")
		}()
		next.ServeHTTP(w, r)
	})
}

// statusWriter remembers what was written.
type statusWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// logAccess writes one line per request at debug. It holds the pattern of the route and neither path nor query, which
// hold names and ids.
func (s *Server) logAccess(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		sw := &statusWriter{ResponseWriter: w}
		next.ServeHTTP(sw, r)
		s.log.Debug("HTTP request", "method", r.Method, "pattern", r.Pattern, "status", sw.status, "bytes", sw.bytes, "duration", time.Since(start))
	})
}

// requestMetrics measures requests by route.
type requestMetrics struct{ duration *prometheus.HistogramVec }

func newRequestMetrics(registerer prometheus.Registerer) (*requestMetrics, error) {
	m := &requestMetrics{duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "signindiag_http_request_duration_seconds",
		Help: "Time to answer a request of the look-up API and pages, by route and status.",
		// A look-up takes some 10 ms and a query is bounded to 10 s.
		Buckets:                     []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		NativeHistogramBucketFactor: 1.1,
	}, []string{"route", "status"})}
	if registerer != nil {
		if err := registerer.Register(m.duration); err != nil {
			return nil, fmt.Errorf("register the metrics of the look-up server: %w", err)
		}
	}
	return m, nil
}

func (m *requestMetrics) measure(pattern string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		sw := &statusWriter{ResponseWriter: w}
		next.ServeHTTP(sw, r)
		m.duration.WithLabelValues(pattern, strconv.Itoa(max(sw.status, http.StatusOK))).Observe(time.Since(start).Seconds())
	})
}
