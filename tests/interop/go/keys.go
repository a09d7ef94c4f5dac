package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const megabyte = 1024 * 1024

func keys(ctx context.Context, client *clientv3.Client) error {
	for number := range 25 {
		if _, err := client.Put(ctx, key(fmt.Sprintf("%02d", number)), "v"); err != nil {
			return err
		}
	}
	replaced, err := client.Put(ctx, key("03"), "w", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	if err := expect(string(replaced.PrevKv.Value) == "v", "previous: %v", replaced.PrevKv); err != nil {
		return err
	}
	page, err := client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithLimit(10),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	if err != nil {
		return err
	}
	sound := page.Count == 25 && page.More && len(page.Kvs) == 10 && string(page.Kvs[0].Key) == key("24")
	if err := expect(sound, "page: %v", page); err != nil {
		return err
	}
	old, err := client.Get(ctx, key("03"), clientv3.WithRev(replaced.PrevKv.ModRevision))
	if err != nil {
		return err
	}
	if err := expect(string(old.Kvs[0].Value) == "v", "old: %v", old.Kvs); err != nil {
		return err
	}
	gone, err := client.Delete(ctx, prefix, clientv3.WithPrefix(), clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	if err := expect(gone.Deleted == 25 && len(gone.PrevKvs) == 25, "deleted %d", gone.Deleted); err != nil {
		return err
	}
	left, err := client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	return expect(left.Count == 0, "%d left", left.Count)
}

// transactions lets ten writers count together; nobody's step may be lost.
func transactions(ctx context.Context, client *clientv3.Client) error {
	const writers, steps = 10, 10
	counter := key("counter")
	if _, err := client.Put(ctx, counter, "0"); err != nil {
		return err
	}
	var group sync.WaitGroup
	failed := make(chan error, writers)
	for range writers {
		group.Go(func() {
			for range steps {
				if err := increment(ctx, client, counter); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	group.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	found, err := client.Get(ctx, counter)
	if err != nil {
		return err
	}
	return expect(string(found.Kvs[0].Value) == strconv.Itoa(writers*steps), "counted %s", found.Kvs[0].Value)
}

func increment(ctx context.Context, client *clientv3.Client, counter string) error {
	for {
		found, err := client.Get(ctx, counter)
		if err != nil {
			return err
		}
		count, err := strconv.Atoi(string(found.Kvs[0].Value))
		if err != nil {
			return err
		}
		done, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(counter), "=", found.Kvs[0].ModRevision)).
			Then(clientv3.OpPut(counter, strconv.Itoa(count+1)), clientv3.OpGet(counter)).
			Else(clientv3.OpGet(counter)).
			Commit()
		if err != nil {
			return err
		}
		if done.Succeeded {
			return nil
		}
	}
}

// large moves messages of a megabyte both ways, also several at a time and to a watch.
func large(ctx context.Context, client *clientv3.Client) error {
	const count = 6
	events := client.Watch(ctx, prefix, clientv3.WithPrefix())
	var group sync.WaitGroup
	failed := make(chan error, 2*count)
	for number := range count {
		group.Go(func() {
			name := key(strconv.Itoa(number))
			value := bytes.Repeat([]byte{byte('a' + number)}, megabyte)
			if _, err := client.Put(ctx, name, string(value)); err != nil {
				failed <- err
				return
			}
			found, err := client.Get(ctx, name)
			if err == nil {
				err = expect(bytes.Equal(found.Kvs[0].Value, value), "%s came back changed", name)
			}
			if err != nil {
				failed <- err
			}
		})
	}
	group.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	seen := 0
	for seen < count {
		answer := <-events
		if err := answer.Err(); err != nil {
			return err
		}
		for _, event := range answer.Events {
			if len(event.Kv.Value) != megabyte {
				return fmt.Errorf("an event of %d bytes", len(event.Kv.Value))
			}
			seen++
		}
	}
	_, err := client.Delete(ctx, prefix, clientv3.WithPrefix())
	return err
}
