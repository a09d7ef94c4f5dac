// Checks of stock grpc-go, as a client of a real kvsecure server; peers.py says how it is called.
//
// The messages are made from what the server's own reflection tells of them.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
)

// How long one check may take.
const checkMax = 30 * time.Second

var checks = map[string]func(ctx context.Context, channel *grpc.ClientConn) error{
	"unary":                unary,
	"server_stream":        serverStream,
	"bidirectional_stream": bidirectionalStream,
	"large_messages":       largeMessages,
	"many_requests":        manyRequests,
	"many_events":          manyEvents,
	"stalled_reader":       stalledReader,
	"cancellation":         cancellation,
	"deadline":             deadline,
	"pings_permitted":      pingsPermitted,
	"pings_excessive":      pingsExcessive,
	"compression":          compression,
	"oversize":             oversize,
	"unknown":              unknown,
	"metadata":             carriedMetadata,
	"error_text":           errorText,
	"health":               health,
	"reflection":           reflection,
	"restart":              restart,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
}

// run does checks in a row over one channel, and says how each of them ended.
func run(names []string) error {
	channel, err := connect(true)
	if err != nil {
		return err
	}
	defer channel.Close()
	prefix = fmt.Sprintf("/stock/go/%d/", time.Now().UnixNano())
	for _, name := range names {
		begun, verdict := time.Now(), "passed"
		if err := once(channel, name); err != nil {
			verdict = "failed"
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		}
		fmt.Printf("%s %s %.2f\n", verdict, name, time.Since(begun).Seconds())
	}
	return nil
}

func once(channel *grpc.ClientConn, name string) error {
	check, known := checks[name]
	if !known {
		return fmt.Errorf("no check %q", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkMax)
	defer cancel()
	if err := describe(ctx, channel); err != nil {
		return err
	}
	return check(ctx, channel)
}
