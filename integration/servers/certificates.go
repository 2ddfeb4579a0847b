package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Certificates are a certificate authority of a test, with a certificate for servers on loopback and one for clients.
type Certificates struct {
	// CAFile holds the authority's certificate; all files are PEM.
	CAFile string
	// ClientCertFile and ClientKeyFile are a client's certificate.
	ClientCertFile, ClientKeyFile string
	// Server is the certificate for 127.0.0.1 and localhost.
	Server tls.Certificate

	serverPEM string // key and certificate in one file, as Kafka wants them
}

// NewCertificates makes an authority and its certificates, valid for a day.
func NewCertificates(t testing.TB) *Certificates {
	t.Helper()
	dir := t.TempDir()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, parts ...[]byte) string {
		path := filepath.Join(dir, name)
		var all []byte
		for _, p := range parts {
			all = append(all, p...)
		}
		check(os.WriteFile(path, all, 0o600))
		return path
	}
	var serial int64
	var authority *x509.Certificate
	var authorityKey *ecdsa.PrivateKey
	sign := func(template *x509.Certificate) (certificate, key []byte) {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		check(err)
		serial++
		template.SerialNumber = big.NewInt(serial)
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		parent, parentKey := authority, authorityKey
		if parent == nil {
			parent, parentKey = template, private
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), parentKey)
		check(err)
		if authority == nil {
			authorityKey = private
			authority, err = x509.ParseCertificate(der)
			check(err)
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(private)
		check(err)
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	}
	ca, _ := sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "authority of a test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	})
	server, serverKey := sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	client, clientKey := sign(&x509.Certificate{
		Subject:  pkix.Name{CommonName: "signindiag"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	c := &Certificates{
		CAFile: write("ca.pem", ca), ClientCertFile: write("client.pem", client), ClientKeyFile: write("client-key.pem", clientKey),
		serverPEM: write("server.pem", serverKey, server),
	}
	var err error
	c.Server, err = tls.X509KeyPair(server, serverKey)
	check(err)
	return c
}
