package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const password = "walnut-Ferry-compass-5521"

// accounts makes a user who may read some keys, and is that user.
func accounts(ctx context.Context, client *clientv3.Client) error {
	name := fmt.Sprintf("go-%d", time.Now().UnixNano())
	if _, err := client.RoleAdd(ctx, name); err != nil {
		return err
	}
	end := clientv3.GetPrefixRangeEnd(prefix)
	if _, err := client.RoleGrantPermission(ctx, name, prefix, end, clientv3.PermissionType(clientv3.PermRead)); err != nil {
		return err
	}
	if _, err := client.UserAdd(ctx, name, password); err != nil {
		return err
	}
	if _, err := client.UserGrantRole(ctx, name, name); err != nil {
		return err
	}
	if _, err := client.Put(ctx, key("x"), "v"); err != nil {
		return err
	}
	reader, err := connect(name, password)
	if err != nil {
		return err
	}
	defer reader.Close()
	found, err := reader.Get(ctx, key("x"))
	if err != nil {
		return err
	}
	if err := expect(found.Count == 1, "found %d", found.Count); err != nil {
		return err
	}
	if _, err := reader.Put(ctx, key("x"), "w"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return fmt.Errorf("a reader's put: %v", err)
	}
	user, err := client.UserGet(ctx, name)
	if err != nil {
		return err
	}
	if err := expect(len(user.Roles) == 1 && user.Roles[0] == name, "roles %v", user.Roles); err != nil {
		return err
	}
	if _, err := client.UserRevokeRole(ctx, name, name); err != nil {
		return err
	}
	if _, err := reader.Get(ctx, key("x")); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return fmt.Errorf("a get without a role: %v", err)
	}
	if _, err := client.UserDelete(ctx, name); err != nil {
		return err
	}
	_, err = client.RoleDelete(ctx, name)
	return err
}

// stranger knows no password, or no user.
func stranger(_ context.Context, _ *clientv3.Client) error {
	for _, name := range []string{"root", "nobody"} {
		client, err := connect(name, "not the password of anybody")
		if err == nil {
			client.Close()
		}
		if !errors.Is(err, rpctypes.ErrAuthFailed) {
			return fmt.Errorf("%s: %v", name, err)
		}
	}
	return nil
}

// failures are told in the words that clients look for.
func failures(ctx context.Context, client *clientv3.Client) error {
	put, err := client.Put(ctx, key("x"), "v")
	if err != nil {
		return err
	}
	_, future := client.Get(ctx, key("x"), clientv3.WithRev(put.Header.Revision+1_000))
	_, unleased := client.Put(ctx, key("x"), "v", clientv3.WithLease(12345678))
	_, unknown := client.UserGet(ctx, "nobody-at-all")
	_, empty := client.Put(ctx, "", "v")
	_, twice := client.Txn(ctx).Then(clientv3.OpPut(key("x"), "1"), clientv3.OpPut(key("x"), "2")).Commit()
	for _, one := range []struct{ got, want error }{
		{future, rpctypes.ErrFutureRev},
		{unleased, rpctypes.ErrLeaseNotFound},
		{unknown, rpctypes.ErrUserNotFound},
		{empty, rpctypes.ErrEmptyKey},
		{twice, rpctypes.ErrDuplicateKey},
	} {
		if !errors.Is(one.got, one.want) {
			return fmt.Errorf("%v instead of %v", one.got, one.want)
		}
	}
	return nil
}
