package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	keepAlive    = "etcdserverpb.Lease/LeaseKeepAlive"
	authenticate = "etcdserverpb.Auth/Authenticate"
)

func login() fields {
	return fields{"name": os.Getenv("KVSECURE_USER"), "password": os.Getenv("KVSECURE_PASSWORD")}
}

// unary calls with a certificate, and with a token in the metadata.
func unary(ctx context.Context, channel *grpc.ClientConn) error {
	if err := put(ctx, channel, "x", []byte("v")); err != nil {
		return err
	}
	other, err := connect(false)
	if err != nil {
		return err
	}
	defer other.Close()
	answer, err := call(ctx, other, authenticate, login())
	if err != nil {
		return err
	}
	named := metadata.AppendToOutgoingContext(ctx, "token", at(answer, "token").String())
	wrong := metadata.AppendToOutgoingContext(ctx, "token", "wrong")
	return errors.Join(
		holds(ctx, channel, "x", []byte("v")),
		holds(named, other, "x", []byte("v")),
		failed(holds(wrong, other, "x", nil), codes.Unauthenticated, "invalid auth token"),
	)
}

// serverStream sends one request and reads many messages and their end.
func serverStream(ctx context.Context, channel *grpc.ClientConn) error {
	tail, err := open(ctx, channel, "kvsecurepb.Audit/Tail")
	if err != nil {
		return err
	}
	if err := errors.Join(tail.send(fields{"count": uint32(10)}), tail.CloseSend()); err != nil {
		return err
	}
	for count := 0; ; {
		answer, err := tail.receive()
		if errors.Is(err, io.EOF) {
			return expect(count == 10, "%d records", count)
		}
		if err != nil {
			return err
		}
		count += at(answer, "records").List().Len()
	}
}

// bidirectionalStream takes turns on a stream; both ends close another.
func bidirectionalStream(ctx context.Context, channel *grpc.ClientConn) error {
	watching, err := watch(ctx, channel, "both", 0)
	if err != nil {
		return err
	}
	for number := range 20 {
		value := fmt.Sprint(number)
		if err := put(ctx, channel, "both/x", []byte(value)); err != nil {
			return err
		}
		if err := sees(watching, value); err != nil {
			return err
		}
		if err := watching.send(fields{"progress_request": fields{}}); err != nil {
			return err
		}
		answer, err := watching.receive()
		if err != nil {
			return err
		}
		if err := expect(at(answer, "events").List().Len() == 0, "%v", answer); err != nil {
			return err
		}
	}
	if err := watching.send(fields{"cancel_request": fields{"watch_id": int64(0)}}); err != nil {
		return err
	}
	answer, err := watching.receive()
	if err != nil || !at(answer, "canceled").Bool() {
		return fmt.Errorf("a cancelled watch: %v, %w", answer, err)
	}
	keeping, err := open(ctx, channel, keepAlive)
	if err != nil {
		return err
	}
	for lease := int64(1); lease < 20; lease++ {
		if err := keeping.send(fields{"ID": lease}); err != nil {
			return err
		}
		answer, err := keeping.receive()
		if err != nil || at(answer, "ID").Int() != lease {
			return fmt.Errorf("lease %d: %v, %w", lease, answer, err)
		}
	}
	if err := keeping.CloseSend(); err != nil {
		return err
	}
	_, err = keeping.receive()
	return expect(errors.Is(err, io.EOF), "at the end: %v", err)
}

// largeMessages moves a megabyte there and back, four at a time.
func largeMessages(ctx context.Context, channel *grpc.ClientConn) error {
	failures := make(chan error)
	for number := range 4 {
		go func() {
			name := fmt.Sprintf("large/%d", number)
			value := bytes.Repeat([]byte{byte(97 + number)}, megabyte)
			if err := put(ctx, channel, name, value); err != nil {
				failures <- err
				return
			}
			failures <- holds(ctx, channel, name, value)
		}()
	}
	return errors.Join(<-failures, <-failures, <-failures, <-failures)
}

// manyRequests sends ten thousand small messages each way on one stream.
func manyRequests(ctx context.Context, channel *grpc.ClientConn) error {
	lease, err := call(ctx, channel, "etcdserverpb.Lease/LeaseGrant", fields{"TTL": int64(600)})
	if err != nil {
		return err
	}
	keeping, err := open(ctx, channel, keepAlive)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		request := message(keeping.called.Input(), fields{"ID": at(lease, "ID").Int()})
		for range many {
			if err := keeping.SendMsg(request); err != nil {
				sent <- err
				return
			}
		}
		sent <- keeping.CloseSend()
	}()
	for number := range many {
		answer, err := keeping.receive()
		if err != nil || at(answer, "TTL").Int() != 600 {
			return fmt.Errorf("after %d answers: %v, %w", number, answer, err)
		}
	}
	_, err = keeping.receive()
	return errors.Join(<-sent, expect(errors.Is(err, io.EOF), "at the end: %v", err))
}

// manyEvents sees ten thousand events in order while they happen.
func manyEvents(ctx context.Context, channel *grpc.ClientConn) error {
	watching, err := watch(ctx, channel, "many", 0)
	if err != nil {
		return err
	}
	filled := make(chan error, 1)
	go func() { filled <- fill(ctx, channel, "many", 10) }()
	return errors.Join(inOrder(watching, "many", 10), <-filled)
}

// stalledReader reads nothing for a while, and then gets all of twenty megabytes.
func stalledReader(ctx context.Context, channel *grpc.ClientConn) error {
	watching, err := watch(ctx, channel, "stalled", 0)
	if err != nil {
		return err
	}
	if err := fill(ctx, channel, "stalled", 2_048); err != nil {
		return err
	}
	time.Sleep(time.Second)
	// Others on the same connection are served meanwhile.
	if err := put(ctx, channel, "x", []byte("beside")); err != nil {
		return err
	}
	return errors.Join(
		holds(ctx, channel, "x", []byte("beside")), inOrder(watching, "stalled", 2_048),
	)
}

// cancellation gives up watches and calls: the server lets go, and serves the others.
func cancellation(ctx context.Context, channel *grpc.ClientConn) error {
	kept, err := watch(ctx, channel, "cancelled", 0)
	if err != nil {
		return err
	}
	before, err := handled("Watch")
	if err != nil {
		return err
	}
	for range 20 {
		watching, cancel := context.WithCancel(ctx)
		_, err := watch(watching, channel, "cancelled", 0)
		cancel()
		if err != nil {
			return err
		}
		calling, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Millisecond, cancel)
		_, err = call(calling, channel, authenticate, login())
		if err := failed(err, codes.Canceled, ""); err != nil {
			return err
		}
	}
	if err := untilHandled(ctx, "Watch", before+20); err != nil {
		return err
	}
	if err := put(ctx, channel, "cancelled/x", []byte("v")); err != nil {
		return err
	}
	return sees(kept, "v")
}

// deadline lets calls run out of time, at the server as well.
func deadline(ctx context.Context, channel *grpc.ClientConn) error {
	before, err := handled("LeaseKeepAlive")
	if err != nil {
		return err
	}
	for range 5 {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		keeping, err := open(short, channel, keepAlive)
		if err == nil {
			_, err = keeping.receive()
		}
		cancel()
		if err := failed(err, codes.DeadlineExceeded, ""); err != nil {
			return err
		}
		short, cancel = context.WithTimeout(ctx, 2*time.Millisecond)
		_, err = call(short, channel, authenticate, login())
		cancel()
		if err := failed(err, codes.DeadlineExceeded, ""); err != nil {
			return err
		}
	}
	if err := untilHandled(ctx, "LeaseKeepAlive", before+5); err != nil {
		return err
	}
	return put(ctx, channel, "late", nil)
}

func pinging(interval time.Duration) (*grpc.ClientConn, error) {
	// Read when the channel connects.
	pingIntervalMin = interval
	return connect(true, grpc.WithKeepaliveParams(keepalive.ClientParameters{
		Time: interval, Timeout: 5 * time.Second,
	}))
}

// pingsPermitted pings as often as it may, which leaves the connection alone.
func pingsPermitted(ctx context.Context, _ *grpc.ClientConn) error {
	channel, err := pinging(600 * time.Millisecond)
	if err != nil {
		return err
	}
	defer channel.Close()
	watching, err := watch(ctx, channel, "pinged", 0)
	if err != nil {
		return err
	}
	time.Sleep(3_200 * time.Millisecond)
	if err := put(ctx, channel, "pinged/x", []byte("v")); err != nil {
		return err
	}
	return sees(watching, "v")
}

// pingsExcessive pings too often; that ends the connection, with gRPC's word for it.
func pingsExcessive(ctx context.Context, _ *grpc.ClientConn) error {
	channel, err := pinging(100 * time.Millisecond)
	if err != nil {
		return err
	}
	defer channel.Close()
	watching, err := watch(ctx, channel, "pinged", 0)
	if err != nil {
		return err
	}
	_, err = watching.receive()
	return errors.Join(
		failed(err, codes.Unavailable, "too_many_pings"),
		put(ctx, channel, "pinged/x", []byte("v"), grpc.WaitForReady(true)),
	)
}

// encodings takes note of how answers are encoded.
type encodings struct{ last atomic.Value }

func (e *encodings) HandleRPC(_ context.Context, told stats.RPCStats) {
	if header, ok := told.(*stats.InHeader); ok {
		e.last.Store(header.Compression)
	}
}

func (*encodings) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*encodings) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*encodings) HandleConn(context.Context, stats.ConnStats)                       {}

// compression of requests is understood, on a stream too; who uses it gets it back, and nobody else.
func compression(ctx context.Context, _ *grpc.ClientConn) error {
	seen := &encodings{}
	channel, err := connect(true, grpc.WithStatsHandler(seen))
	if err != nil {
		return err
	}
	defer channel.Close()
	compressed := grpc.UseCompressor(gzip.Name)
	value := bytes.Repeat([]byte("compress me "), 50_000)
	if err := put(ctx, channel, "plain", value); err != nil {
		return err
	}
	if err := holds(ctx, channel, "plain", value); err != nil {
		return err
	}
	if err := expect(seen.last.Load() == "", "an answer in %v", seen.last.Load()); err != nil {
		return err
	}
	if err := put(ctx, channel, "gzip", value, compressed); err != nil {
		return err
	}
	if err := holds(ctx, channel, "gzip", value, compressed); err != nil {
		return err
	}
	if err := expect(seen.last.Load() == gzip.Name, "an answer in %v", seen.last.Load()); err != nil {
		return err
	}
	watching, err := watch(ctx, channel, "gzip", 0, compressed)
	if err != nil {
		return err
	}
	if err := put(ctx, channel, "gzip/x", value); err != nil {
		return err
	}
	return sees(watching, string(value))
}

// oversize requests are refused in etcd's words, oversize messages in those of grpc-go.
func oversize(ctx context.Context, channel *grpc.ClientConn) error {
	large := put(ctx, channel, "x", make([]byte, 1_600_000))
	huge := put(ctx, channel, "x", make([]byte, 3_000_000))
	return errors.Join(
		failed(large, codes.InvalidArgument, "etcdserver: request is too large"),
		failed(huge, codes.ResourceExhausted, "grpc: received message larger than max (30000"),
		put(ctx, channel, "x", []byte("v")),
	)
}

func foreign(ctx context.Context, channel *grpc.ClientConn, path string) error {
	empty := message(method(keyPath+"Range").Input(), nil)
	return channel.Invoke(ctx, path, empty, empty.New().Interface())
}

// unknown methods and services are unimplemented.
func unknown(ctx context.Context, channel *grpc.ClientConn) error {
	stream, err := channel.NewStream(
		ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/no.Service/Get",
	)
	if err != nil {
		return err
	}
	return errors.Join(
		failed(
			foreign(ctx, channel, "/etcdserverpb.KV/Steal"), codes.Unimplemented,
			"unknown method Steal for service etcdserverpb.KV",
		),
		failed(
			foreign(ctx, channel, "/no.Service/Get"), codes.Unimplemented, "unknown service no.Service",
		),
		failed(stream.RecvMsg(message(method(keyPath+"Range").Output(), nil)), codes.Unimplemented, ""),
	)
}

// carriedMetadata is of any kind: several values of a name, and bytes.
func carriedMetadata(ctx context.Context, channel *grpc.ClientConn) error {
	all := make([]byte, 256)
	for number := range all {
		all[number] = byte(number)
	}
	carried := metadata.AppendToOutgoingContext(
		ctx, "trace-bin", string(all), "trace-bin", "", "trace-bin", "\x00",
		"trace", "one", "trace", "two, three",
	)
	keeping, err := open(carried, channel, keepAlive)
	if err != nil {
		return err
	}
	if err := errors.Join(keeping.send(fields{"ID": int64(1)}), keeping.CloseSend()); err != nil {
		return err
	}
	answer, err := keeping.receive()
	return errors.Join(
		err, expect(at(answer, "TTL").Int() == 0, "%v", answer), put(carried, channel, "x", nil),
	)
}

// errorText arrives as it was meant, whatever characters are in it.
func errorText(ctx context.Context, channel *grpc.ClientConn) error {
	return failed(
		foreign(ctx, channel, "/nö.Sérvice%20/Get"), codes.Unimplemented,
		"unknown service nö.Sérvice%20",
	)
}

// health is answered once, and as long as somebody watches.
func health(ctx context.Context, channel *grpc.ClientConn) error {
	const serving, serviceUnknown = 1, 3
	answer, err := call(ctx, channel, "grpc.health.v1.Health/Check", nil)
	if err != nil || at(answer, "status").Enum() != serving {
		return fmt.Errorf("check: %v, %w", answer, err)
	}
	nobody := fields{"service": "no.Service"}
	_, err = call(ctx, channel, "grpc.health.v1.Health/Check", nobody)
	if err := failed(err, codes.NotFound, "unknown service"); err != nil {
		return err
	}
	for expected, asked := range map[protoreflect.EnumNumber]fields{serving: nil, serviceUnknown: nobody} {
		watching, err := open(ctx, channel, "grpc.health.v1.Health/Watch")
		if err != nil {
			return err
		}
		if err := errors.Join(watching.send(asked), watching.CloseSend()); err != nil {
			return err
		}
		answer, err := watching.receive()
		if err != nil || at(answer, "status").Enum() != expected {
			return fmt.Errorf("watch of %v: %v, %w", asked, answer, err)
		}
	}
	return nil
}

// reflection tells what the server speaks; every other check relies on the rest of it.
func reflection(ctx context.Context, channel *grpc.ClientConn) error {
	stream, err := reflectionpb.NewServerReflectionClient(channel).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	question := &reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{ListServices: "*"},
	}
	if err := errors.Join(stream.Send(question), stream.CloseSend()); err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	found := map[string]bool{}
	for _, service := range answer.GetListServicesResponse().GetService() {
		found[service.GetName()] = true
	}
	all := found["etcdserverpb.KV"] && found["etcdserverpb.Watch"] && found["grpc.health.v1.Health"]
	return expect(all, "%v", found)
}

// restart of the server ends streams; the same channel finds it again.
func restart(ctx context.Context, channel *grpc.ClientConn) error {
	watching, err := watch(ctx, channel, "restart", 0)
	if err != nil {
		return err
	}
	if err := put(ctx, channel, "restart/x", []byte("before")); err != nil {
		return err
	}
	if err := sees(watching, "before"); err != nil {
		return err
	}
	fmt.Println("restart")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	_, err = watching.receive()
	if err := failed(err, codes.Unavailable, ""); err != nil {
		return err
	}
	ready := grpc.WaitForReady(true)
	if err := holds(ctx, channel, "restart/x", []byte("before"), ready); err != nil {
		return err
	}
	if err := put(ctx, channel, "restart/x", []byte("after")); err != nil {
		return err
	}
	again, err := watch(ctx, channel, "restart", 1)
	if err != nil {
		return err
	}
	answer, err := again.receive()
	return errors.Join(err, expect(at(answer, "events").List().Len() == 2, "%v", answer))
}
