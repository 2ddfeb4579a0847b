package lookup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/signindiag/signindiag/detectors"
	"github.com/signindiag/signindiag/schemas/catalogue"
)

// Bounds of the HTTP server.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	// writeTimeout is longer than two queries that meet their bounds.
	writeTimeout = 30 * time.Second
	idleTimeout  = 2 * time.Minute
	// maxHeaderBytes is ample: a search in the URL and a token.
	maxHeaderBytes = 32 << 10
)

// Config is what a Server needs beside its Store.
type Config struct {
	// Viewer decides what a request may see; required.
	Viewer Viewer
	// Ready returns why this process cannot do its work now, one reason a line; empty when it is ready. nil
	// means that there is nothing beside ClickHouse to wait for.
	Ready func(context.Context) []string
	// Engine returns what the shards of this process tell of their engines; nil where the process has none. It is called
	// concurrently, and what it returns is read only.
	Engine func() []EngineShard
	// Metrics answers /metrics; nil serves none.
	Metrics http.Handler
	// Registerer takes the server's own metrics; nil measures nothing.
	Registerer prometheus.Registerer
	// Hosts are further names under which the server is reached. A server on loopback answers only to
	// localhost and loopback addresses, so that no page in a browser on this machine can read it by pointing
	// a name of its own at loopback (DNS rebinding).
	Hosts []string
	// Log gets one line per request at debug, and errors; nil is silent.
	Log *slog.Logger
	// Demo marks the pages as showing made-up records.
	Demo bool
}

// Server serves the API, the pages, health and metrics. Make it with NewServer, then Listen, Serve, Shutdown.
type Server struct {
	config    Config
	store     *Store
	renderer  detectors.Renderer
	catalogue *catalogue.Catalogue
	log       *slog.Logger
	pages     *pages
	http      *http.Server
	listener  net.Listener
	loopback  bool
	metrics   *requestMetrics
}

// NewServer returns a server over a store. It fails on a Config without a Viewer, on metrics that are registered
// already, and on nothing that can change later.
func NewServer(config Config, store *Store, renderer detectors.Renderer, c *catalogue.Catalogue) (*Server, error) {
	if config.Viewer == nil {
		return nil, errors.New("look-up server: no viewer configured, so nobody may see anything")
	}
	log := config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{config: config, store: store, renderer: renderer, catalogue: c, log: log}
	var err error
	if s.pages, err = newPages(); err != nil {
		return nil, err
	}
	if s.metrics, err = newRequestMetrics(config.Registerer); err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Listen binds the address (host:port, port 0 for a free one) and returns the one that was bound. Requests are
// answered once Serve runs.
func (s *Server) Listen(ctx context.Context, address string) (net.Addr, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP on %s (choose another by SIGNINDIAG_HTTP_ADDRESS): %w", address, err)
	}
	s.listener = listener
	if bound, ok := listener.Addr().(*net.TCPAddr); ok {
		s.loopback = bound.IP.IsLoopback()
	}
	return listener.Addr(), nil
}

// Serve answers requests until Shutdown, and then returns nil.
func (s *Server) Serve() error {
	if s.listener == nil {
		return errors.New("serve HTTP: Listen has not been called")
	}
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", s.listener.Addr(), err)
	}
	return nil
}

// Shutdown ends Serve, lets running requests finish until ctx is done, and closes the rest.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("shut down HTTP: %w", err), s.http.Close())
	}
	if s.listener != nil {
		// Serve may not have been called; a second close is of no consequence.
		if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("shut down HTTP: %w", err)
		}
	}
	return nil
}

// Handler returns the server's handler, for tests and for embedding into another server. Host names are checked only
// after Listen has bound loopback.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	route := func(pattern string, h http.HandlerFunc) {
		mux.Handle(pattern, s.metrics.measure(pattern, h))
	}
	s.routeAPI(route)
	s.routePages(route)
	route("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writePlain(w, http.StatusOK, "ok") })
	route("GET /readyz", s.ready)
	if s.config.Metrics != nil {
		mux.Handle("GET /metrics", s.config.Metrics)
	}
	return s.recoverPanic(s.logAccess(s.secure(gzhttp.GzipHandler(mux))))
}

// ready answers 200, or 503 with the reasons.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	var reasons []string
	if s.config.Ready != nil {
		reasons = s.config.Ready(r.Context())
	}
	if err := s.store.Ping(r.Context()); err != nil {
		s.log.Debug("ClickHouse does not answer", "error", err)
		reasons = append(reasons, "ClickHouse does not answer")
	}
	if len(reasons) > 0 {
		writePlain(w, http.StatusServiceUnavailable, strings.Join(reasons, "\n"))
		return
	}
	writePlain(w, http.StatusOK, "ready")
}

func writePlain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // a client that has gone misses nothing
}
