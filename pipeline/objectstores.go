package pipeline

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	_ "gocloud.dev/blob/azureblob" // azblob://CONTAINER
	_ "gocloud.dev/blob/s3blob"    // s3://BUCKET
	"gocloud.dev/gcerrors"
)

// SnapshotsSetting is the name of the setting that errors of the store of snapshots tell of.
const SnapshotsSetting = "SIGNINDIAG_SNAPSHOTS_URL"

const snapshotURLs = "file:///directory, s3://BUCKET or azblob://CONTAINER (gs://BUCKET where built with -tags gcs)"

// storeTimeout bounds a request to the store; the reading of a snapshot it bounds from one piece to the next. The clients of
// object stores would try for minutes, and nobody would be told.
const storeTimeout = 30 * time.Second

// writeTimeout bounds the writing of a snapshot without which a shard does not begin; it may have a gigabyte.
const writeTimeout = 5 * time.Minute

// storeError is an error of an object store in words that may be shown: on one line, without bodies and queries of requests, which
// can hold signatures, and with what to do.
type storeError struct {
	place string
	err   error
}

// Unwrap returns the store's own error, whose text may hold secrets.
func (e *storeError) Unwrap() error { return e.err }

// maxStoreText bounds the store's own words, in bytes.
const maxStoreText = 500

var (
	urlQuery = regexp.MustCompile(`(\w+://[^\s"?]*)\?[^\s"]*`)
	blobKey  = regexp.MustCompile(`blob \(key "[^"]*"\) `) // which the caller tells
)

func (e *storeError) Error() string {
	var words []string
	for line := range strings.Lines(e.err.Error()) {
		line = strings.Trim(line, "- \r\n\t")
		if strings.HasPrefix(line, "<") || strings.HasPrefix(line, "{") {
			break // the body of an answer
		}
		if line != "" {
			words = append(words, line)
		}
	}
	text := blobKey.ReplaceAllString(urlQuery.ReplaceAllString(strings.Join(words, "; "), "$1"), "")
	if len(text) > maxStoreText {
		text = strings.ToValidUTF8(text[:maxStoreText], "") + "..."
	}
	return text + " [" + e.place + ": " + e.advice(text) + "]"
}

func (e *storeError) advice(text string) string {
	switch code := gcerrors.Code(e.err); {
	// Azure has many codes for it, of which azureblob knows few.
	case code == gcerrors.PermissionDenied, strings.Contains(text, "RESPONSE 403"), strings.Contains(text, "RESPONSE 401"):
		return "give the credentials of this process the rights to list, read, write and delete there"
	case code == gcerrors.NotFound:
		return "make the bucket or container, or correct " + SnapshotsSetting
	case errors.Is(e.err, context.DeadlineExceeded), code == gcerrors.DeadlineExceeded:
		return "it does not answer in time; look whether it is reachable from here"
	}
	return "look whether it is reachable, and at " + SnapshotsSetting
}
