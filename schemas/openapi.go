package schemas

import _ "embed"

// OpenAPI is the description of the HTTP API (OpenAPI 3.1, YAML). The slice must not be changed.
//
//go:embed openapi.yaml
var OpenAPI []byte
