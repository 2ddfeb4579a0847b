//go:build static

package embedded

import "errors"

// RunLibrary is not part of a program that was built with the tag static: loading a library takes the system's dynamic linker.
func RunLibrary(string, ...string) error {
	return errors.New("this program was built static, without the embedded ClickHouse: install the program clickhouse, or use a build without the tag static")
}
