//go:build gcs

package pipeline

// Google's client doubles the dependencies of the binary, so it is linked on demand.
import _ "gocloud.dev/blob/gcsblob" // gs://BUCKET
