package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/signindiag/signindiag/schemas/exports"
)

// readFiles calls each for every value of every file, in order. What is wrong with a file or with one of its values is
// said on std.err, one line each, and the rest is read all the same; bad counts those lines. An error of each, or the end of ctx,
// ends the reading.
func readFiles(ctx context.Context, std streams, paths []string, each func(item exports.Item, file string) error) (bad int, err error) {
	progress := newFileProgress(std, paths)
	defer progress.finish()
	for _, path := range paths {
		n, err := readFile(ctx, std, path, progress, each)
		bad += n
		if err != nil {
			return bad, err
		}
	}
	return bad, nil
}

func readFile(ctx context.Context, std streams, path string, progress *fileProgress, each func(exports.Item, string) error) (bad int, err error) {
	complain := func(err error) {
		progress.clear()
		fmt.Fprintln(std.err, oneLine(err.Error()))
		bad++
	}
	reader, err := exports.Open(path, std.in)
	if err != nil {
		complain(err)
		return bad, nil
	}
	defer reader.Close()
	progress.next(reader)
	for n := 0; ; n++ {
		if n%256 == 0 {
			progress.update()
			if ctx.Err() != nil {
				return bad, fmt.Errorf("stopped while reading %s", reader.Name())
			}
		}
		item, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return bad, nil
		}
		if err != nil {
			complain(err)
			return bad, nil
		}
		if item.Err != nil {
			complain(item.Err)
			continue
		}
		if err := each(item, reader.Name()); err != nil {
			return bad, err
		}
	}
}

// oneLine makes a text fit for one line of a terminal.
func oneLine(text string) string {
	return strings.Join(strings.Fields(text), " ")
}

// fileProgress shows how far the files are read, on a terminal only.
type fileProgress struct {
	bar    *progressbar.ProgressBar
	reader *exports.Reader
	done   int64
}

// newFileProgress returns a bar over the sizes of all files; over standard input or where std.err is no terminal it shows nothing.
func newFileProgress(std streams, paths []string) *fileProgress {
	file, ok := std.err.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return &fileProgress{}
	}
	total := int64(0)
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
	}
	if total == 0 {
		return &fileProgress{}
	}
	return &fileProgress{bar: progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(std.err), progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish(),
		progressbar.OptionSetDescription("reading"), progressbar.OptionThrottle(100e6), progressbar.OptionSetWidth(30))}
}

func (p *fileProgress) next(reader *exports.Reader) {
	if p.reader != nil {
		p.done += p.reader.BytesRead()
	}
	p.reader = reader
}

func (p *fileProgress) update() {
	if p.bar != nil && p.reader != nil {
		_ = p.bar.Set64(p.done + p.reader.BytesRead()) // a bar that cannot be drawn is no failure
	}
}

func (p *fileProgress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

func (p *fileProgress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

// describeCategories lists counts by category, most first: "35 AuditLogs, 2 RiskyUsers".
func describeCategories(counts map[string]int) string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool {
		if counts[names[i]] != counts[names[j]] {
			return counts[names[i]] > counts[names[j]]
		}
		return names[i] < names[j]
	})
	var b bytes.Buffer
	for i, name := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d %s", counts[name], name)
	}
	return b.String()
}

// plural returns "1 record", "3 records" or "2 addresses".
func plural(n int, noun string) string {
	switch {
	case n == 1:
		return fmt.Sprintf("%d %s", n, noun)
	case strings.HasSuffix(noun, "s"):
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
