// Package containers tests signindiag's own image, docker-compose.yml and cuts of the network between containers. It holds
// tests only.
package containers
