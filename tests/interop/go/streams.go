package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// watch sees every change once and in order, from the past on, with what was there before.
func watch(ctx context.Context, client *clientv3.Client) error {
	const count = 1_000
	first, err := client.Put(ctx, key("x"), "0")
	if err != nil {
		return err
	}
	for number := 1; number < count/2; number++ {
		if _, err := client.Put(ctx, key("x"), strconv.Itoa(number)); err != nil {
			return err
		}
	}
	events := client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithPrevKV(),
		clientv3.WithRev(first.Header.Revision), clientv3.WithProgressNotify())
	failed := make(chan error, 1)
	go func() {
		for number := count / 2; number < count; number++ {
			if _, err := client.Put(ctx, key("x"), strconv.Itoa(number)); err != nil {
				failed <- err
				return
			}
		}
		_, err := client.Delete(ctx, key("x"))
		failed <- err
	}()
	next := 0
	for next <= count {
		answer := <-events
		if err := answer.Err(); err != nil {
			return err
		}
		for _, event := range answer.Events {
			if next == count {
				if err := expect(event.Type == clientv3.EventTypeDelete, "%v at the end", event); err != nil {
					return err
				}
			} else if string(event.Kv.Value) != strconv.Itoa(next) {
				return fmt.Errorf("%s instead of %d", event.Kv.Value, next)
			}
			if next > 0 && string(event.PrevKv.Value) != strconv.Itoa(next-1) {
				return fmt.Errorf("%s before %d", event.PrevKv.Value, next)
			}
			next++
		}
	}
	return <-failed
}

// many sends ten thousand small messages on one stream, and reads as many answers.
func many(ctx context.Context, client *clientv3.Client) error {
	const count = 10_000
	lease, err := client.Grant(ctx, 600)
	if err != nil {
		return err
	}
	stream, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		for range count {
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(lease.ID)}); err != nil {
				failed <- err
				return
			}
		}
		failed <- stream.CloseSend()
	}()
	for number := range count {
		answer, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("after %d answers: %w", number, err)
		}
		if answer.TTL != 600 {
			return fmt.Errorf("a TTL of %d", answer.TTL)
		}
	}
	return <-failed
}

func leases(ctx context.Context, client *clientv3.Client) error {
	lease, err := client.Grant(ctx, 60)
	if err != nil {
		return err
	}
	if _, err := client.Put(ctx, key("leased"), "v", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	once, err := client.KeepAliveOnce(ctx, lease.ID)
	if err != nil {
		return err
	}
	left, err := client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	sound := once.TTL == 60 && left.GrantedTTL == 60 && len(left.Keys) == 1 && string(left.Keys[0]) == key("leased")
	if err := expect(sound, "lease: %v, %v", once, left); err != nil {
		return err
	}
	if _, err := client.Revoke(ctx, lease.ID); err != nil {
		return err
	}
	found, err := client.Get(ctx, key("leased"))
	if err != nil {
		return err
	}
	return expect(found.Count == 0, "the key outlived its lease")
}

// expiry keeps a lease alive for longer than its time, and then lets go of it.
func expiry(ctx context.Context, client *clientv3.Client) error {
	lease, err := client.Grant(ctx, 2)
	if err != nil {
		return err
	}
	if _, err := client.Put(ctx, key("leased"), "v", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	kept, let := context.WithCancel(ctx)
	defer let()
	alive, err := client.KeepAlive(kept, lease.ID)
	if err != nil {
		return err
	}
	for begun := time.Now(); time.Since(begun) < 3*time.Second; {
		if answer, open := <-alive; !open || answer.TTL != 2 {
			return fmt.Errorf("keep-alive: %v, %v", answer, open)
		}
	}
	found, err := client.Get(ctx, key("leased"))
	if err != nil {
		return err
	}
	if err := expect(found.Count == 1, "the key is gone though its lease was kept alive"); err != nil {
		return err
	}
	events := client.Watch(ctx, key("leased"), clientv3.WithRev(found.Header.Revision+1))
	let()
	answer := <-events
	if err := answer.Err(); err != nil {
		return err
	}
	return expect(answer.Events[0].Type == clientv3.EventTypeDelete, "%v", answer.Events[0])
}

// cancellation gives up watches and calls; the others on the same connection go on.
func cancellation(ctx context.Context, client *clientv3.Client) error {
	kept := client.Watch(ctx, prefix, clientv3.WithPrefix())
	for range 50 {
		watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		events := client.Watch(watching, prefix, clientv3.WithPrefix())
		cancel()
		for range events {
		}
		calling, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := client.Get(calling, prefix); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("a cancelled call: %v", err)
		}
	}
	if _, err := client.Put(ctx, key("x"), "v"); err != nil {
		return err
	}
	answer := <-kept
	return expect(answer.Err() == nil && len(answer.Events) == 1, "%v", answer)
}

// deadline lets calls run out of time; the connection goes on.
func deadline(ctx context.Context, client *clientv3.Client) error {
	stream, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	defer stop()
	alive, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseKeepAlive(stream)
	if err != nil {
		return err
	}
	if _, err := alive.Recv(); err == nil || stream.Err() == nil {
		return fmt.Errorf("a stream outlived its deadline: %v", err)
	}
	for range 20 {
		short, cancel := context.WithTimeout(ctx, time.Microsecond)
		_, err := client.Put(short, key("x"), "v")
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("a call that had no time: %v", err)
		}
	}
	_, err = client.Get(ctx, key("x"))
	return err
}

// restart goes on after the server has gone away and come back: calls, a watch, a lease.
func restart(ctx context.Context, client *clientv3.Client) error {
	lease, err := client.Grant(ctx, 30)
	if err != nil {
		return err
	}
	alive, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	if answer := <-alive; answer == nil {
		return errors.New("the lease was not kept alive")
	}
	events := client.Watch(ctx, prefix, clientv3.WithPrefix())
	if _, err := client.Put(ctx, key("before"), "v", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	fmt.Println("restart")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	if err := untilServed(ctx, client); err != nil {
		return err
	}
	for _, expected := range []string{"before", "after"} {
		answer := <-events
		if err := answer.Err(); err != nil {
			return err
		}
		if got := string(answer.Events[0].Kv.Key); got != key(expected) || len(answer.Events) != 1 {
			return fmt.Errorf("%v instead of %s", answer.Events, expected)
		}
	}
	once, err := client.KeepAliveOnce(ctx, lease.ID)
	if err != nil {
		return err
	}
	return expect(once.TTL == 30, "a TTL of %d", once.TTL)
}

func untilServed(ctx context.Context, client *clientv3.Client) error {
	for {
		// A put is not tried again by the client itself: it may have happened.
		_, err := client.Put(ctx, key("after"), "v")
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
