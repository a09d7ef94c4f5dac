// Scenarios of etcd's Go client against a real kvsecure server; peers.py says how it is called.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// How long a whole scenario may take.
const scenarioMax = 50 * time.Second

type scenario func(ctx context.Context, client *clientv3.Client) error

var scenarios = map[string]scenario{
	"keys":         keys,
	"transactions": transactions,
	"large":        large,
	"watch":        watch,
	"many":         many,
	"leases":       leases,
	"expiry":       expiry,
	"accounts":     accounts,
	"cancellation": cancellation,
	"deadline":     deadline,
	"errors":       failures,
	"restart":      restart,
	"stranger":     stranger,
	"ride":         ride,
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(name string) error {
	do, known := scenarios[name]
	if !known {
		return fmt.Errorf("no scenario %q", name)
	}
	client, err := connect(os.Getenv("KVSECURE_USER"), os.Getenv("KVSECURE_PASSWORD"))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), scenarioMax)
	defer cancel()
	// Every run has keys of its own: scenarios share a server.
	prefix = fmt.Sprintf("/go/%s/%d/", name, time.Now().UnixNano())
	return do(ctx, client)
}

// connect returns a client; without a user its identity is its certificate. It never has both: a
// certificate and a token that name different users are refused.
func connect(user, password string) (*clientv3.Client, error) {
	trusted := x509.NewCertPool()
	pem, err := os.ReadFile(os.Getenv("KVSECURE_CA"))
	if err != nil {
		return nil, err
	}
	if !trusted.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", os.Getenv("KVSECURE_CA"))
	}
	settings := &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS13}
	if os.Getenv("KVSECURE_OLD_TLS") != "" {
		settings.MinVersion = tls.VersionTLS12
	}
	if certificate := os.Getenv("KVSECURE_CERT"); certificate != "" && user == "" {
		pair, err := tls.LoadX509KeyPair(certificate, os.Getenv("KVSECURE_KEY"))
		if err != nil {
			return nil, err
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	var endpoints []string
	for _, endpoint := range strings.Split(os.Getenv("KVSECURE_ENDPOINT"), ",") {
		endpoints = append(endpoints, "https://"+endpoint)
	}
	return clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		TLS:                  settings,
		Username:             user,
		Password:             password,
		DialTimeout:          10 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		Logger:               zap.NewNop(),
	})
}

// prefix is what all keys of this run begin with.
var prefix string

func key(name string) string { return prefix + name }

// expect returns an error that says what was wrong unless something holds.
func expect(holds bool, format string, values ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf(format, values...)
}
