//go:build !unix

package main

import "os"

// processAlive reports whether a process with this id exists.
func processAlive(pid int) bool {
	_, err := os.FindProcess(pid)
	return pid > 0 && err == nil
}
