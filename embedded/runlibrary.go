//go:build !static

package embedded

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// RunLibrary loads libchdb.so into this process and runs clickhouse-local in it, until that returns. The arguments begin with the
// program's name. The engine takes over signal handlers and may end the process: a process of its own is the place for it.
func RunLibrary(library string, arguments ...string) error {
	handle, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return fmt.Errorf("load the ClickHouse library %s: %w", library, err)
	}
	// query_stable_v2(int argc, char **argv) is chDB's entry to clickhouse-local
	// (https://github.com/chdb-io/chdb, programs/local/chdb.h).
	entry, err := purego.Dlsym(handle, "query_stable_v2")
	if err != nil {
		return fmt.Errorf("library %s is not a chDB of the expected kind: %w", library, err)
	}
	runtime.LockOSThread()
	callMain(entry, arguments)
	return nil
}

// callMain calls a C function of main's shape.
func callMain(function uintptr, arguments []string) {
	texts := make([][]byte, len(arguments))
	argv := make([]*byte, len(arguments)+1) // C expects a null pointer at the end.
	var pins runtime.Pinner
	defer pins.Unpin()
	for i, argument := range arguments {
		texts[i] = append([]byte(argument), 0)
		argv[i] = &texts[i][0]
		pins.Pin(argv[i])
	}
	pins.Pin(&argv[0])
	purego.SyscallN(function, uintptr(len(arguments)), uintptr(unsafe.Pointer(&argv[0])))
}
