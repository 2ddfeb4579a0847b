//go:build crashpoints

package crashpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	chosen = Count
	left   atomic.Int64
)

func init() {
	text := os.Getenv(Variable)
	if text == "" {
		return
	}
	name, count, _ := strings.Cut(text, ":")
	n, err := strconv.Atoi(count)
	for p := range Count {
		if p.String() == name {
			chosen = p
		}
	}
	if err != nil || n < 1 || chosen == Count {
		panic(fmt.Sprintf("%s=%q: want NAME:N", Variable, text))
	}
	left.Store(int64(n))
}

// At kills this process with SIGKILL where it was told to. It may be called from any goroutine.
func At(p Point) {
	if p != chosen || left.Add(-1) != 0 {
		return
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(err)
	}
	select {} // the signal is on its way
}
