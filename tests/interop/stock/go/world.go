package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
	// For go:linkname.
	_ "unsafe"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

const (
	megabyte = 1024 * 1024
	many     = 10_000
	// How many operations go into one transaction, to make many events with few calls.
	batch   = 100
	keyPath = "etcdserverpb.KV/"
)

// grpc-go pings no more often than every ten seconds, for which no test has time.
//
//go:linkname pingIntervalMin google.golang.org/grpc/internal.KeepaliveMinPingTime
var pingIntervalMin time.Duration

// prefix is what all keys of this run begin with.
var prefix string

// settings returns what TLS is spoken with; the identity is the certificate of root, or none.
func settings(certified bool) (*tls.Config, error) {
	trusted := x509.NewCertPool()
	pem, err := os.ReadFile(os.Getenv("KVSECURE_CA"))
	if err != nil {
		return nil, err
	}
	trusted.AppendCertsFromPEM(pem)
	spoken := &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS13}
	if certified {
		pair, err := tls.LoadX509KeyPair(os.Getenv("KVSECURE_CERT"), os.Getenv("KVSECURE_KEY"))
		if err != nil {
			return nil, err
		}
		spoken.Certificates = []tls.Certificate{pair}
	}
	return spoken, nil
}

func connect(certified bool, how ...grpc.DialOption) (*grpc.ClientConn, error) {
	spoken, err := settings(certified)
	if err != nil {
		return nil, err
	}
	how = append(how,
		grpc.WithTransportCredentials(credentials.NewTLS(spoken)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64*megabyte)),
	)
	return grpc.NewClient("passthrough:///"+os.Getenv("KVSECURE_ENDPOINT"), how...)
}

func key(name string) []byte { return []byte(prefix + name) }

func put(
	ctx context.Context, channel *grpc.ClientConn, name string, value []byte, how ...grpc.CallOption,
) error {
	_, err := call(ctx, channel, keyPath+"Put", fields{"key": key(name), "value": value}, how...)
	return err
}

// holds returns an error unless a key has a value.
func holds(
	ctx context.Context, channel *grpc.ClientConn, name string, value []byte, how ...grpc.CallOption,
) error {
	answer, err := call(ctx, channel, keyPath+"Range", fields{"key": key(name)}, how...)
	if err != nil {
		return err
	}
	found := at(answer, "kvs").List()
	if found.Len() != 1 || !bytes.Equal(at(found.Get(0).Message(), "value").Bytes(), value) {
		return fmt.Errorf("%s has another value", name)
	}
	return nil
}

func numbered(name string, number, size int) ([]byte, []byte) {
	value := append(fmt.Appendf(nil, "%05d", number), bytes.Repeat([]byte("x"), size)...)
	return fmt.Appendf(key(name), "/%05d", number), value
}

// fill puts many keys, each with its number and padding as value.
func fill(ctx context.Context, channel *grpc.ClientConn, name string, size int) error {
	for begin := 0; begin < many; begin += batch {
		var operations []fields
		for number := begin; number < begin+batch; number++ {
			key, value := numbered(name, number, size)
			put := fields{"key": key, "value": value}
			operations = append(operations, fields{"request_put": put})
		}
		if _, err := call(ctx, channel, keyPath+"Txn", fields{"success": operations}); err != nil {
			return err
		}
	}
	return nil
}

// watch begins to watch all keys below a name, and returns once that is so.
func watch(
	ctx context.Context, channel *grpc.ClientConn, name string, revision int64, how ...grpc.CallOption,
) (*dialogue, error) {
	watching, err := open(ctx, channel, "etcdserverpb.Watch/Watch", how...)
	if err != nil {
		return nil, err
	}
	create := fields{"key": key(name + "/"), "range_end": key(name + "0"), "start_revision": revision}
	if err := watching.send(fields{"create_request": create}); err != nil {
		return nil, err
	}
	answer, err := watching.receive()
	if err != nil {
		return nil, err
	}
	return watching, expect(at(answer, "created").Bool(), "%v", answer)
}

// inOrder reads what fill writes.
func inOrder(watching *dialogue, name string, size int) error {
	for number := 0; number < many; {
		answer, err := watching.receive()
		if err != nil {
			return fmt.Errorf("after %d events: %w", number, err)
		}
		events := at(answer, "events").List()
		for index := range events.Len() {
			expectedKey, expectedValue := numbered(name, number, size)
			event := events.Get(index).Message()
			if !bytes.Equal(at(event, "kv", "key").Bytes(), expectedKey) ||
				!bytes.Equal(at(event, "kv", "value").Bytes(), expectedValue) {
				return fmt.Errorf("%s is not number %d", at(event, "kv", "key").Bytes(), number)
			}
			number++
		}
	}
	return nil
}

// sees returns an error unless the next thing a watch sees is one value.
func sees(watching *dialogue, value string) error {
	answer, err := watching.receive()
	if err != nil {
		return err
	}
	events := at(answer, "events").List()
	if events.Len() != 1 || string(at(events.Get(0).Message(), "kv", "value").Bytes()) != value {
		return fmt.Errorf("%v instead of %s", answer, value)
	}
	return nil
}

var counted = regexp.MustCompile(`(?m)^grpc_server_handled_total\{(.*)\} ([0-9.]+)$`)

// handled returns how many calls of a method the server counts as cancelled or out of time.
func handled(name string) (int, error) {
	spoken, err := settings(false)
	if err != nil {
		return 0, err
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: spoken, DisableKeepAlives: true}}
	answer, err := client.Get("https://" + os.Getenv("KVSECURE_ENDPOINT") + "/metrics")
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	count := 0
	for _, line := range counted.FindAllStringSubmatch(string(text), -1) {
		given := strings.Contains(line[1], `grpc_code="Canceled"`) ||
			strings.Contains(line[1], `grpc_code="DeadlineExceeded"`)
		if given && strings.Contains(line[1], `grpc_method="`+name+`"`) {
			number, err := strconv.ParseFloat(line[2], 64)
			if err != nil {
				return 0, err
			}
			count += int(number)
		}
	}
	return count, nil
}

// untilHandled waits until the server has let go of so many calls of a method.
func untilHandled(ctx context.Context, name string, count int) error {
	for {
		found, err := handled(name)
		if err != nil || found >= count {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d %s ended", found, count, name)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// expect returns an error that says what was wrong unless something holds.
func expect(holds bool, format string, values ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf(format, values...)
}

// failed returns an error unless a call failed with a code, and with this in its text.
func failed(err error, code codes.Code, text string) error {
	seen := status.Convert(err)
	sound := seen.Code() == code && strings.Contains(seen.Message(), text)
	return expect(sound, "%v instead of %v %s", err, code, text)
}
