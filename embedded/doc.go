// Package embedded carries the two servers that signindiag leans on, a Kafka-protocol broker and a
// ClickHouse server, on this machine: for the first minute with the program and for tests. Both listen
// on loopback only and keep their data in a directory that survives kill -9 of any process involved.
//
// The broker (StartBroker) runs inside this process. The ClickHouse engine (StartClickHouse) runs in a
// child process, so that its signal handlers and crashes stay out of ours; the child is this very
// executable started again, and therefore main and TestMain have to call ClickHouseMain first.
package embedded
