//go:build !unix

package main

import "time"

// processCPU is not known on this system.
func processCPU() time.Duration { return 0 }

// peakMemory is not known on this system.
func peakMemory() int64 { return 0 }
