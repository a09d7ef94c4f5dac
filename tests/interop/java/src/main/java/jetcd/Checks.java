package jetcd;

import io.etcd.jetcd.Auth;
import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.ClientBuilder;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.Lease;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.auth.Permission;
import io.etcd.jetcd.common.exception.CompactedException;
import io.etcd.jetcd.common.exception.EtcdException;
import io.etcd.jetcd.kv.GetResponse;
import io.etcd.jetcd.kv.TxnResponse;
import io.etcd.jetcd.lease.LeaseKeepAliveResponse;
import io.etcd.jetcd.lease.LeaseTimeToLiveResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.support.CloseableClient;
import io.etcd.jetcd.watch.WatchEvent;
import io.etcd.jetcd.watch.WatchResponse;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.netty.GrpcSslContexts;
import io.grpc.stub.StreamObserver;
import io.netty.handler.ssl.SslContextBuilder;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Stream;

/** The checks, by name. */
final class Checks {
  private static final int MEGABYTE = 1024 * 1024;
  private static final int WAIT_S_MAX = 20;
  private static final String SECRET = "walnut-Ferry-compass-5521";
  private static final String PREFIX = "/jetcd/" + System.nanoTime() + "/";

  /** What may fail in any way. */
  interface Check {
    void run() throws Exception;
  }

  private final Client client;
  private final KV kv;

  Checks(Client client) {
    this.client = client;
    this.kv = client.getKVClient();
  }

  Map<String, Check> all() {
    Map<String, Check> all = new LinkedHashMap<>();
    all.put("keys", this::keys);
    all.put("transactions", this::transactions);
    all.put("compaction", this::compaction);
    all.put("large", this::large);
    all.put("leases", this::leases);
    all.put("expiry", this::expiry);
    all.put("watch", this::watch);
    all.put("progress", this::progress);
    all.put("accounts", this::accounts);
    all.put("errors", this::errors);
    all.put("restart", this::restart);
    all.put("ride", () -> new Ride(client).run());
    return all;
  }

  /** Returns a client; without a user its identity is its certificate, and it never has both. */
  static Client connect(String user, String password) throws Exception {
    SslContextBuilder tls =
        GrpcSslContexts.forClient()
            .trustManager(new File(System.getenv("KVSECURE_CA")))
            .protocols(
                System.getenv("KVSECURE_OLD_TLS") == null
                    ? List.of("TLSv1.3")
                    : List.of("TLSv1.3", "TLSv1.2"));
    String[] endpoints =
        Stream.of(System.getenv("KVSECURE_ENDPOINT").split(","))
            .map(endpoint -> "https://" + endpoint)
            .toArray(String[]::new);
    ClientBuilder builder =
        Client.builder()
            .endpoints(endpoints)
            .keepaliveTime(Duration.ofSeconds(10))
            .maxInboundMessageSize(64 * MEGABYTE);
    if (user == null) {
      File certificate = new File(System.getenv("KVSECURE_CERT"));
      tls.keyManager(certificate, new File(System.getenv("KVSECURE_KEY")));
    } else {
      builder.user(bytes(user)).password(bytes(password));
    }
    return builder.sslContext(tls.build()).build();
  }

  private static ByteSequence bytes(String text) {
    return ByteSequence.from(text, StandardCharsets.UTF_8);
  }

  private static ByteSequence key(String name) {
    return bytes(PREFIX + name);
  }

  private static <T> T get(CompletableFuture<T> future) throws Exception {
    return future.get(WAIT_S_MAX, TimeUnit.SECONDS);
  }

  private void put(String name, String value) throws Exception {
    get(kv.put(key(name), bytes(value)));
  }

  private String value(String name) throws Exception {
    List<KeyValue> found = get(kv.get(key(name))).getKvs();
    return found.isEmpty() ? null : found.get(0).getValue().toString();
  }

  private static void expect(boolean holds, Object why) {
    if (!holds) {
      throw new AssertionError(why);
    }
  }

  /** Expects a call to fail with a code, and with this in its text. */
  private static void fails(Code code, String text, CompletableFuture<?> call) throws Exception {
    try {
      get(call);
    } catch (ExecutionException error) {
      expect(codeOf(error.getCause()) == code, error);
      Throwable inner = error;
      while (inner.getCause() != null) {
        inner = inner.getCause();
      }
      expect(inner.getMessage().contains(text), error);
      return;
    }
    throw new AssertionError("it did not fail with " + code);
  }

  /** Returns the code of an error: jetcd has an exception of its own for some, or gRPC's. */
  static Code codeOf(Throwable error) {
    return error instanceof EtcdException own
        ? Code.valueOf(own.getErrorCode().name())
        : Status.fromThrowable(error).getCode();
  }

  private void keys() throws Exception {
    for (int number = 0; number < 25; number++) {
      put(String.format("k/%02d", number), "v");
    }
    GetOption.Builder all = GetOption.builder().isPrefix(true);
    expect(get(kv.get(key("k/"), all.withCountOnly(true).build())).getCount() == 25, "count");
    GetOption page =
        GetOption.builder()
            .isPrefix(true)
            .withSortField(GetOption.SortTarget.KEY)
            .withSortOrder(GetOption.SortOrder.DESCEND)
            .withLimit(10)
            .build();
    GetResponse found = get(kv.get(key("k/"), page));
    expect(found.getKvs().size() == 10 && found.isMore(), found);
    expect(found.getKvs().get(0).getKey().equals(key("k/24")), found);
    DeleteOption whole = DeleteOption.builder().isPrefix(true).withPrevKV(true).build();
    expect(get(kv.delete(key("k/"), whole)).getPrevKvs().size() == 25, "deleted");
    expect(value("k/03") == null, "it is still there");
  }

  private void transactions() throws Exception {
    put("counter", "0");
    CompletableFuture<?>[] workers = new CompletableFuture<?>[5];
    for (int worker = 0; worker < workers.length; worker++) {
      workers[worker] = CompletableFuture.runAsync(this::increment);
    }
    get(CompletableFuture.allOf(workers));
    expect("50".equals(value("counter")), value("counter"));
  }

  private void increment() {
    try {
      for (int done = 0; done < 10; ) {
        KeyValue found = get(kv.get(key("counter"))).getKvs().get(0);
        int next = Integer.parseInt(found.getValue().toString()) + 1;
        TxnResponse answer =
            get(
                kv.txn()
                    .If(
                        new Cmp(
                            key("counter"),
                            Cmp.Op.EQUAL,
                            CmpTarget.modRevision(found.getModRevision())))
                    .Then(Op.put(key("counter"), bytes("" + next), PutOption.DEFAULT))
                    .Else(Op.get(key("counter"), GetOption.DEFAULT))
                    .commit());
        done += answer.isSucceeded() ? 1 : 0;
      }
    } catch (Exception error) {
      throw new AssertionError(error);
    }
  }

  private void compaction() throws Exception {
    put("old", "1");
    long old = get(kv.get(key("old"))).getHeader().getRevision();
    put("old", "2");
    GetOption past = GetOption.builder().withRevision(old).build();
    String before = get(kv.get(key("old"), past)).getKvs().get(0).getValue().toString();
    expect("1".equals(before), before);
    get(kv.compact(old + 1));
    fails(Code.OUT_OF_RANGE, "has been compacted", kv.get(key("old"), past));
    CompletableFuture<Throwable> ended = new CompletableFuture<>();
    WatchOption begin = WatchOption.builder().withRevision(old).build();
    client
        .getWatchClient()
        .watch(key("old"), begin, Watch.listener(answer -> {}, ended::complete));
    Throwable why = get(ended);
    expect(why instanceof CompactedException, why);
    expect(((CompactedException) why).getCompactedRevision() == old + 1, why);
  }

  private void large() throws Exception {
    for (int number = 0; number < 4; number++) {
      String value = Character.toString('a' + number).repeat(MEGABYTE);
      put("large", value);
      expect(value.equals(value("large")), number);
    }
  }

  private void leases() throws Exception {
    Lease leases = client.getLeaseClient();
    long lease = get(leases.grant(60)).getID();
    get(kv.put(key("leased"), bytes("v"), PutOption.builder().withLeaseId(lease).build()));
    expect(get(leases.keepAliveOnce(lease)).getTTL() == 60, "another time");
    LeaseOption attached = LeaseOption.builder().withAttachedKeys().build();
    LeaseTimeToLiveResponse left = get(leases.timeToLive(lease, attached));
    expect(left.getGrantedTTL() == 60 && left.getKeys().size() == 1, left);
    get(leases.revoke(lease));
    expect(value("leased") == null, "the key outlived its lease");
    fails(Code.NOT_FOUND, "requested lease not found", leases.revoke(lease));
  }

  /** Keeps a lease alive for longer than its time, and then lets go of it. */
  private void expiry() throws Exception {
    Lease leases = client.getLeaseClient();
    long lease = get(leases.grant(2)).getID();
    get(kv.put(key("leased"), bytes("v"), PutOption.builder().withLeaseId(lease).build()));
    AtomicInteger kept = new AtomicInteger();
    CloseableClient keeping =
        leases.keepAlive(
            lease,
            new StreamObserver<LeaseKeepAliveResponse>() {
              @Override
              public void onNext(LeaseKeepAliveResponse answer) {
                kept.incrementAndGet();
              }

              @Override
              public void onError(Throwable error) {
                error.printStackTrace();
              }

              @Override
              public void onCompleted() {}
            });
    Thread.sleep(3_000);
    expect(kept.get() >= 2, kept);
    expect("v".equals(value("leased")), "the key is gone though its lease was kept alive");
    try (Watching watching = new Watching(key("leased"), WatchOption.DEFAULT)) {
      keeping.close();
      expect(watching.event().getEventType() == WatchEvent.EventType.DELETE, "no deletion");
    }
  }

  /** A watch whose answers wait to be asked for. */
  private final class Watching implements AutoCloseable {
    private final BlockingQueue<Object> came = new LinkedBlockingQueue<>();
    private final Watch.Watcher watcher;

    Watching(ByteSequence key, WatchOption option) {
      Watch.Listener listener = Watch.listener(this::sort, came::add);
      watcher = client.getWatchClient().watch(key, option, listener);
    }

    private void sort(WatchResponse answer) {
      if (answer.isProgressNotify()) {
        came.add(answer);
      }
      came.addAll(answer.getEvents());
    }

    Object next() throws InterruptedException {
      Object next = came.poll(WAIT_S_MAX, TimeUnit.SECONDS);
      expect(next != null, "nothing came");
      return next;
    }

    WatchEvent event() throws InterruptedException {
      Object next = next();
      expect(next instanceof WatchEvent, next);
      return (WatchEvent) next;
    }

    @Override
    public void close() {
      watcher.close();
    }
  }

  /** Sees every change once and in order, from the past on, with what was there before. */
  private void watch() throws Exception {
    int count = 400;
    long first = get(kv.put(key("w/x"), bytes("0"))).getHeader().getRevision();
    for (int number = 1; number < count / 2; number++) {
      put("w/x", "" + number);
    }
    WatchOption all =
        WatchOption.builder().isPrefix(true).withPrevKV(true).withRevision(first).build();
    Watching watching = new Watching(key("w/"), all);
    for (int number = count / 2; number < count; number++) {
      put("w/x", "" + number);
    }
    get(kv.delete(key("w/x")));
    for (int number = 0; number <= count; number++) {
      WatchEvent event = watching.event();
      if (number == count) {
        expect(event.getEventType() == WatchEvent.EventType.DELETE, event);
      } else {
        expect(event.getKeyValue().getValue().toString().equals("" + number), number);
      }
      String before = event.getPrevKV().getValue().toString();
      expect(before.equals(number == 0 ? "" : "" + (number - 1)), before);
    }
    watching.close();
    put("w/x", "unseen");
    expect("unseen".equals(value("w/x")), "the connection does not go on");
    expect(watching.came.stream().noneMatch(WatchEvent.class::isInstance), watching.came);
  }

  private void progress() throws Exception {
    try (Watching watching =
        new Watching(key("p/"), WatchOption.builder().isPrefix(true).build())) {
      put("p/x", "v");
      expect(watching.event().getKeyValue().getValue().equals(bytes("v")), "another value");
      watching.watcher.requestProgress();
      expect(watching.next() instanceof WatchResponse, "no progress");
    }
  }

  private void accounts() throws Exception {
    Auth auth = client.getAuthClient();
    String plain = "jetcd-" + System.nanoTime();
    ByteSequence name = bytes(plain);
    get(auth.roleAdd(name));
    get(auth.roleGrantPermission(name, key("a/"), key("a0"), Permission.Type.READ));
    get(auth.userAdd(name, bytes(SECRET)));
    get(auth.userGrantRole(name, name));
    expect(get(auth.userGet(name)).getRoles().contains(plain), "no role");
    expect(get(auth.userList()).getUsers().contains(plain), "no user");
    List<Permission> permissions = get(auth.roleGet(name)).getPermissions();
    expect(permissions.size() == 1 && permissions.get(0).getKey().equals(key("a/")), permissions);
    put("a/x", "v");
    try (Client reader = connect(plain, SECRET)) {
      KV reading = reader.getKVClient();
      expect(get(reading.get(key("a/x"))).getCount() == 1, "it does not read");
      fails(
          Code.PERMISSION_DENIED,
          "etcdserver: permission denied",
          reading.put(key("a/x"), bytes("w")));
    }
    get(auth.userRevokeRole(name, name));
    get(auth.roleRevokePermission(name, key("a/"), key("a0")));
    get(auth.userDelete(name));
    get(auth.roleDelete(name));
    expect(!get(auth.roleList()).getRoles().contains(plain), "the role is still there");
  }

  private void errors() throws Exception {
    fails(Code.INVALID_ARGUMENT, "key is not provided", kv.put(bytes(""), bytes("v")));
    GetOption future = GetOption.builder().withRevision(1_000_000_000).build();
    fails(Code.OUT_OF_RANGE, "is a future revision", kv.get(key("x"), future));
    PutOption leased = PutOption.builder().withLeaseId(12).build();
    fails(
        Code.NOT_FOUND, "requested lease not found", kv.put(key("x"), bytes("v"), leased));
    Auth auth = client.getAuthClient();
    fails(
        Code.FAILED_PRECONDITION, "user name not found", auth.userGet(bytes("jetcd-nobody")));
    try (Client stranger = connect("root", "not the password of anybody")) {
      // jetcd's code for it, and the server's text.
      fails(
          Code.UNAUTHENTICATED,
          "authentication failed, invalid user ID or password",
          stranger.getKVClient().get(key("x")));
    }
  }

  /** Goes on after the server has gone away and come back: calls, a watch, a lease. */
  private void restart() throws Exception {
    long lease = get(client.getLeaseClient().grant(30)).getID();
    try (Watching watching =
        new Watching(key("r/"), WatchOption.builder().isPrefix(true).build())) {
      get(kv.put(key("r/x"), bytes("before"), PutOption.builder().withLeaseId(lease).build()));
      expect(watching.event().getKeyValue().getValue().equals(bytes("before")), "another value");
      System.out.println("restart");
      System.in.read();
      put("r/x", "after");
      // It tells of the error, and then goes on by itself.
      Object told = watching.next();
      expect(told instanceof Throwable error && codeOf(error) == Code.UNAVAILABLE, told);
      expect(watching.event().getKeyValue().getValue().equals(bytes("after")), "another value");
    }
    expect(get(client.getLeaseClient().keepAliveOnce(lease)).getTTL() == 30, "another time");
  }
}
