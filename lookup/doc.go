// Package lookup answers questions about what signindiag has diagnosed: a sign-in by its correlation id or
// request id, a search over users, applications and addresses, and incidents. Store asks ClickHouse,
// Server gives the answers as JSON and as pages, WriteResult and its siblings give them as text.
//
// A row of the tables holds typed evidence and no sentence; sentences are rendered for one viewer at a time,
// from the evidence that this viewer may see. Nothing in this package shows a stored summary.
package lookup
