package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"
)

const (
	// How long one call of a ride may take.
	rideCallMax = 10 * time.Second
	// How many put and get at the same time, so that somebody asks while a member dies.
	rideWorkers = 3
)

// What a ride saw of a watch.
type seen struct {
	name     string
	revision int64
}

// ride puts and gets, watches and keeps a lease, while the cluster has trouble, until it is told to
// end. It tells what was served and what failed; it fails by itself if something was lost.
func ride(ctx context.Context, client *clientv3.Client) error {
	lease, err := client.Grant(ctx, 5)
	if err != nil {
		return err
	}
	leased, err := client.Put(ctx, "/leased"+prefix, "v", clientv3.WithLease(lease.ID))
	if err != nil {
		return err
	}
	alive, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	go func() {
		for range alive {
		}
		if ctx.Err() == nil {
			tell("lease", errors.New("it is kept alive no more"))
		}
	}()
	watched := make(chan seen, 100_000)
	go follow(client.Watch(ctx, prefix, clientv3.WithPrefix()), watched)
	told := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		close(told)
	}()
	acknowledged := rideOn(ctx, client, told)
	if err := settle(ctx, client, acknowledged, watched); err != nil {
		return err
	}
	found, err := client.Get(ctx, "/leased"+prefix)
	if err != nil {
		return err
	}
	kept := found.Count == 1 && found.Kvs[0].CreateRevision == leased.Header.Revision
	return expect(kept, "the key is gone though its lease was kept alive: %v", found.Kvs)
}

// follow collects what a watch sees.
func follow(events clientv3.WatchChan, watched chan<- seen) {
	for answer := range events {
		if err := answer.Err(); err != nil {
			tell("watch", err)
		}
		for _, event := range answer.Events {
			watched <- seen{string(event.Kv.Key), event.Kv.ModRevision}
		}
	}
}

// rideOn has some workers put one key after the other and read it, and returns the revisions of those
// acknowledged.
func rideOn(ctx context.Context, client *clientv3.Client, told <-chan struct{}) map[string]int64 {
	acknowledged := make(map[string]int64)
	var lock sync.Mutex
	var group sync.WaitGroup
	for worker := range rideWorkers {
		group.Go(func() {
			for number := 0; ; number++ {
				select {
				case <-told:
					return
				case <-time.After(10 * time.Millisecond):
				}
				name := key(fmt.Sprintf("%d/%06d", worker, number))
				if revision := putAndGet(ctx, client, name); revision > 0 {
					lock.Lock()
					acknowledged[name] = revision
					lock.Unlock()
				}
			}
		})
	}
	group.Wait()
	return acknowledged
}

// putAndGet returns the revision at which the put was acknowledged, or 0.
func putAndGet(ctx context.Context, client *clientv3.Client, name string) int64 {
	calling, cancel := context.WithTimeout(ctx, rideCallMax)
	defer cancel()
	put, err := client.Put(calling, name, "v")
	if err != nil {
		tell("put", err)
		return 0
	}
	found, err := client.Get(calling, name)
	if err != nil {
		tell("get", err)
	} else if found.Count != 1 {
		tell("get", errors.New("what was acknowledged is not there"))
	} else {
		fmt.Println("served")
	}
	return put.Header.Revision
}

// settle finds every acknowledged put, and every change once and in order in what was watched.
func settle(ctx context.Context, client *clientv3.Client, acknowledged map[string]int64, watched <-chan seen) error {
	end, err := client.Put(ctx, key("end"), "v")
	if err != nil {
		return err
	}
	last, changes := int64(0), int64(0)
	for last < end.Header.Revision {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the watch saw %d changes, until %d", changes, last)
		case one := <-watched:
			if one.revision <= last {
				return fmt.Errorf("the watch saw %v after %d", one, last)
			}
			last = one.revision
			changes++
		}
	}
	found, err := client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	there := make(map[string]int64)
	versions := int64(0)
	for _, kv := range found.Kvs {
		there[string(kv.Key)] = kv.ModRevision
		versions += kv.Version
	}
	if changes != versions {
		return fmt.Errorf("the watch saw %d changes of %d", changes, versions)
	}
	for name, revision := range acknowledged {
		if there[name] != revision {
			return fmt.Errorf("%s was acknowledged at %d and is at %d", name, revision, there[name])
		}
	}
	return nil
}

// tell prints an error on one line, with its code.
func tell(operation string, err error) {
	code := status.Code(err)
	var own rpctypes.EtcdError
	if errors.As(err, &own) {
		code = own.Code()
	}
	fmt.Println("error", operation, code, strings.ReplaceAll(err.Error(), "\n", " "))
}
