package jetcd;

import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.KeyValue;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.lease.LeaseKeepAliveResponse;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import io.etcd.jetcd.watch.WatchResponse;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * Puts and gets, watches and keeps a lease, while the cluster has trouble, until it is told to end.
 *
 * <p>It tells what was served and what failed; it fails by itself if something was lost.
 */
final class Ride {
  private static final String PREFIX = "/jetcd/ride/" + System.nanoTime() + "/";
  private static final int TTL_S = 5;
  private static final int CALL_S_MAX = 10;
  // So that somebody asks while a member dies.
  private static final int WORKERS = 3;

  private final Client client;
  private final KV kv;
  private final BlockingQueue<Long> watched = new LinkedBlockingQueue<>();
  private final Map<ByteSequence, Long> acknowledged = new ConcurrentHashMap<>();
  private volatile boolean isOver;

  Ride(Client client) {
    this.client = client;
    this.kv = client.getKVClient();
  }

  void run() throws Exception {
    ByteSequence held = bytes("/leased" + PREFIX);
    long lease = get(client.getLeaseClient().grant(TTL_S)).getID();
    PutOption attached = PutOption.builder().withLeaseId(lease).build();
    long leased = get(kv.put(held, bytes("v"), attached)).getHeader().getRevision();
    client.getLeaseClient().keepAlive(lease, keeping());
    WatchOption all = WatchOption.builder().isPrefix(true).build();
    Watch.Listener listener = Watch.listener(this::take, error -> tell("watch", error));
    Watch.Watcher watcher = client.getWatchClient().watch(bytes(PREFIX), all, listener);
    Thread end = new Thread(this::waitForEnd);
    end.setDaemon(true);
    end.start();
    Thread[] workers = new Thread[WORKERS];
    for (int worker = 0; worker < WORKERS; worker++) {
      String name = PREFIX + worker + "/";
      workers[worker] = new Thread(() -> work(name));
      workers[worker].start();
    }
    for (Thread worker : workers) {
      worker.join();
    }
    settle();
    List<KeyValue> kept = get(kv.get(held)).getKvs();
    boolean isKept = kept.size() == 1 && kept.get(0).getCreateRevision() == leased;
    expect(isKept, "the key is gone though its lease was kept alive: " + kept);
    watcher.close();
  }

  private void work(String name) {
    for (int number = 0; !isOver; number++) {
      putAndGet(bytes(String.format("%s%06d", name, number)));
    }
  }

  private void putAndGet(ByteSequence key) {
    try {
      Thread.sleep(10);
      acknowledged.put(key, get(kv.put(key, bytes("v"))).getHeader().getRevision());
    } catch (Exception error) {
      tell("put", error);
      return;
    }
    try {
      expect(get(kv.get(key)).getCount() == 1, "what was acknowledged is not there");
      System.out.println("served");
    } catch (Exception | AssertionError error) {
      tell("get", error);
    }
  }

  /** Finds every acknowledged put, and every change once and in order in what was watched. */
  private void settle() throws Exception {
    long end = get(kv.put(bytes(PREFIX + "end"), bytes("v"))).getHeader().getRevision();
    long changes = 0;
    for (long last = 0; last < end; changes++) {
      Long next = watched.poll(CALL_S_MAX, TimeUnit.SECONDS);
      expect(next != null, "the watch saw " + changes + " changes, until " + last);
      expect(next > last, "the watch saw " + next + " after " + last);
      last = next;
    }
    GetOption all = GetOption.builder().isPrefix(true).build();
    Map<ByteSequence, Long> there = new HashMap<>();
    long versions = 0;
    for (KeyValue found : get(kv.get(bytes(PREFIX), all)).getKvs()) {
      there.put(found.getKey(), found.getModRevision());
      versions += found.getVersion();
    }
    expect(changes == versions, "the watch saw " + changes + " changes of " + versions);
    for (Map.Entry<ByteSequence, Long> one : acknowledged.entrySet()) {
      expect(one.getValue().equals(there.get(one.getKey())), one);
    }
  }

  private void take(WatchResponse answer) {
    for (WatchEvent event : answer.getEvents()) {
      watched.add(event.getKeyValue().getModRevision());
    }
  }

  private static StreamObserver<LeaseKeepAliveResponse> keeping() {
    return new StreamObserver<>() {
      @Override
      public void onNext(LeaseKeepAliveResponse answer) {}

      @Override
      public void onError(Throwable error) {
        tell("lease", error);
      }

      @Override
      public void onCompleted() {
        tell("lease", new IllegalStateException("it is kept alive no more"));
      }
    };
  }

  private void waitForEnd() {
    try {
      System.in.read();
    } catch (IOException error) {
      tell("end", error);
    }
    isOver = true;
  }

  /** Prints an error on one line, with its code and what caused it. */
  private static void tell(String operation, Throwable error) {
    Throwable inner = error;
    while (inner.getCause() != null) {
      inner = inner.getCause();
    }
    String text = (error + " <- " + inner).replace('\n', ' ');
    Throwable failure = error instanceof ExecutionException ? error.getCause() : error;
    System.out.println("error " + operation + " " + Checks.codeOf(failure) + " " + text);
  }

  private static ByteSequence bytes(String text) {
    return ByteSequence.from(text, StandardCharsets.UTF_8);
  }

  private static <T> T get(CompletableFuture<T> future) throws Exception {
    return future.get(CALL_S_MAX, TimeUnit.SECONDS);
  }

  private static void expect(boolean holds, Object why) {
    if (!holds) {
      throw new AssertionError(why);
    }
  }
}
