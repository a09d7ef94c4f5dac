package stock;

import com.google.protobuf.ByteString;
import etcdserverpb.KVGrpc;
import etcdserverpb.Kv.PutRequest;
import etcdserverpb.Kv.RangeRequest;
import etcdserverpb.Kv.RangeResponse;
import etcdserverpb.Kv.RequestOp;
import etcdserverpb.Kv.TxnRequest;
import etcdserverpb.WatchGrpc;
import etcdserverpb.WatchOuterClass.WatchCreateRequest;
import etcdserverpb.WatchOuterClass.WatchRequest;
import etcdserverpb.WatchOuterClass.WatchResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.NettyChannelBuilder;
import io.netty.handler.ssl.SslContextBuilder;
import java.io.File;
import java.io.FileInputStream;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import mvccpb.Mvcc.Event;

/** The server, and what the checks do to it again and again. */
final class World {
  static final int MEGABYTE = 1024 * 1024;
  static final int MANY = 10_000;
  static final int CALL_S_MAX = 20;
  // How many operations go into one transaction, to make many events with few calls.
  private static final int BATCH = 100;
  private static final String PREFIX = "/stock/java/" + System.nanoTime() + "/";
  private static final Pattern COUNTED =
      Pattern.compile("^grpc_server_handled_total\\{(.*)\\} ([0-9.]+)$", Pattern.MULTILINE);

  private World() {}

  static String told(String name) {
    return System.getenv("KVSECURE_" + name);
  }

  /** Returns a channel; its identity is the certificate of root, or none. */
  static ManagedChannel connect(boolean certified, UnaryOperator<NettyChannelBuilder> how)
      throws Exception {
    SslContextBuilder tls =
        GrpcSslContexts.forClient().trustManager(new File(told("CA"))).protocols("TLSv1.3");
    if (certified) {
      tls.keyManager(new File(told("CERT")), new File(told("KEY")));
    }
    NettyChannelBuilder builder =
        NettyChannelBuilder.forTarget("dns:///" + told("ENDPOINT"))
            .sslContext(tls.build())
            .maxInboundMessageSize(64 * MEGABYTE);
    return how.apply(builder).build();
  }

  static CallOptions soon() {
    return CallOptions.DEFAULT.withDeadlineAfter(CALL_S_MAX, TimeUnit.SECONDS);
  }

  static KVGrpc.KVBlockingStub kv(Channel channel) {
    return KVGrpc.newBlockingStub(channel).withDeadlineAfter(CALL_S_MAX, TimeUnit.SECONDS);
  }

  static ByteString key(String name) {
    return ByteString.copyFromUtf8(PREFIX + name);
  }

  static ByteString text(String value) {
    return ByteString.copyFromUtf8(value);
  }

  static PutRequest putting(String name, ByteString value) {
    return PutRequest.newBuilder().setKey(key(name)).setValue(value).build();
  }

  static void put(KVGrpc.KVBlockingStub kv, String name, ByteString value) {
    kv.put(putting(name, value));
  }

  static ByteString get(KVGrpc.KVBlockingStub kv, String name) {
    RangeResponse answer = kv.range(RangeRequest.newBuilder().setKey(key(name)).build());
    expect(answer.getKvsCount() == 1, answer);
    return answer.getKvs(0).getValue();
  }

  private static ByteString numbered(int number, int size) {
    return text(String.format("%05d", number) + "x".repeat(size));
  }

  /** Puts many keys, each with its number and padding as value. */
  static void fill(Channel channel, String name, int size) {
    for (int begin = 0; begin < MANY; begin += BATCH) {
      TxnRequest.Builder whole = TxnRequest.newBuilder();
      for (int number = begin; number < begin + BATCH; number++) {
        String numberedName = String.format("%s/%05d", name, number);
        whole.addSuccess(
            RequestOp.newBuilder().setRequestPut(putting(numberedName, numbered(number, size))));
      }
      kv(channel).txn(whole.build());
    }
  }

  static Dialogue<WatchRequest, WatchResponse> watch(Channel channel, String name)
      throws InterruptedException {
    return watch(channel, name, 0, soon());
  }

  /** Watches all keys below a name, once that is so. */
  static Dialogue<WatchRequest, WatchResponse> watch(
      Channel channel, String name, long revision, CallOptions how) throws InterruptedException {
    Dialogue<WatchRequest, WatchResponse> watching =
        Dialogue.open(channel, WatchGrpc.getWatchMethod(), new Metadata(), how);
    WatchCreateRequest.Builder create =
        WatchCreateRequest.newBuilder()
            .setKey(key(name + "/"))
            .setRangeEnd(key(name + "0"))
            .setStartRevision(revision);
    watching.send(WatchRequest.newBuilder().setCreateRequest(create).build());
    WatchResponse answer = watching.next();
    expect(answer.getCreated(), answer);
    return watching;
  }

  /** Reads what fill writes. */
  static void inOrder(Dialogue<WatchRequest, WatchResponse> watching, String name, int size)
      throws InterruptedException {
    for (int number = 0; number < MANY; ) {
      for (Event event : watching.next().getEventsList()) {
        ByteString expected = key(String.format("%s/%05d", name, number));
        expect(event.getKv().getKey().equals(expected), event.getKv().getKey());
        expect(event.getKv().getValue().equals(numbered(number, size)), number);
        number++;
      }
    }
    watching.cancel();
  }

  /** Reads the next thing that a watch sees. */
  static ByteString seen(Dialogue<WatchRequest, WatchResponse> watching)
      throws InterruptedException {
    WatchResponse answer = watching.next();
    expect(answer.getEventsCount() == 1, answer);
    return answer.getEvents(0).getKv().getValue();
  }

  /** Returns how many calls of a method the server counts as cancelled or out of time. */
  static int handled(String name) throws Exception {
    KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
    trusted.load(null, null);
    try (InputStream pem = new FileInputStream(told("CA"))) {
      trusted.setCertificateEntry(
          "ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
    }
    TrustManagerFactory trust =
        TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(trusted);
    SSLContext tls = SSLContext.getInstance("TLSv1.3");
    tls.init(null, trust.getTrustManagers(), null);
    URI page = URI.create("https://" + told("ENDPOINT") + "/metrics");
    HttpClient client = HttpClient.newBuilder().sslContext(tls).build();
    String body = client.send(HttpRequest.newBuilder(page).build(), BodyHandlers.ofString()).body();
    int count = 0;
    for (Matcher line = COUNTED.matcher(body); line.find(); ) {
      String labels = line.group(1);
      boolean given =
          labels.contains("grpc_code=\"Canceled\"")
              || labels.contains("grpc_code=\"DeadlineExceeded\"");
      if (given && labels.contains("grpc_method=\"" + name + "\"")) {
        count += (int) Double.parseDouble(line.group(2));
      }
    }
    return count;
  }

  /** Waits until the server has let go of so many calls of a method. */
  static void untilHandled(String name, int count) throws Exception {
    long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(CALL_S_MAX);
    for (int found = handled(name); found < count; found = handled(name)) {
      expect(System.nanoTime() < end, found + " of " + count + " " + name + " ended");
      Thread.sleep(50);
    }
  }

  static void expect(boolean holds, Object why) {
    if (!holds) {
      throw new AssertionError(why);
    }
  }

  /** Expects a call to fail with a code, and with this in its text. */
  static void fails(Status.Code code, String text, Callable<?> call) throws Exception {
    try {
      call.call();
    } catch (StatusRuntimeException error) {
      String description = String.valueOf(error.getStatus().getDescription());
      expect(error.getStatus().getCode() == code && description.contains(text), error);
      return;
    }
    throw new AssertionError("it did not fail with " + code);
  }

  /** Returns a text of which each character is a byte of this one: so headers are written. */
  static String asBytes(String path) {
    return new String(path.getBytes(StandardCharsets.UTF_8), StandardCharsets.ISO_8859_1);
  }
}
