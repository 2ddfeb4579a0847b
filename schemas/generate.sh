#!/usr/bin/env bash
# Makes entities.pb.go and entities_vtproto.pb.go anew from entities.proto. Needs protoc on the PATH;
# the two plugins are Go modules at the versions of go.mod.
set -euo pipefail
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
GOBIN=$bin go install google.golang.org/protobuf/cmd/protoc-gen-go
GOBIN=$bin go install github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto
pools=()
for message in EntityMessage Source SignIn NetworkLocation Policy Rule RequirementPolicy AuthenticationStep ProcessingDetail; do
	pools+=("--go-vtproto_opt=pool=github.com/signindiag/signindiag/schemas.$message")
done
PATH=$bin:$PATH protoc --go_out=. --go_opt=paths=source_relative \
	--go-vtproto_out=. --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+unmarshal_unsafe+size+pool+clone+equal \
	"${pools[@]}" entities.proto
