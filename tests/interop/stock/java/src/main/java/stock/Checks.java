package stock;

import static stock.World.CALL_S_MAX;
import static stock.World.MANY;
import static stock.World.MEGABYTE;
import static stock.World.connect;
import static stock.World.expect;
import static stock.World.fails;
import static stock.World.fill;
import static stock.World.get;
import static stock.World.handled;
import static stock.World.inOrder;
import static stock.World.kv;
import static stock.World.put;
import static stock.World.seen;
import static stock.World.soon;
import static stock.World.text;
import static stock.World.told;
import static stock.World.untilHandled;
import static stock.World.watch;

import com.google.common.util.concurrent.ListenableFuture;
import com.google.protobuf.ByteString;
import etcdserverpb.AuthGrpc;
import etcdserverpb.AuthOuterClass.AuthenticateRequest;
import etcdserverpb.AuthOuterClass.AuthenticateResponse;
import etcdserverpb.KVGrpc;
import etcdserverpb.Kv.RangeRequest;
import etcdserverpb.LeaseGrpc;
import etcdserverpb.LeaseOuterClass.LeaseGrantRequest;
import etcdserverpb.LeaseOuterClass.LeaseKeepAliveRequest;
import etcdserverpb.LeaseOuterClass.LeaseKeepAliveResponse;
import etcdserverpb.WatchOuterClass.WatchCancelRequest;
import etcdserverpb.WatchOuterClass.WatchProgressRequest;
import etcdserverpb.WatchOuterClass.WatchRequest;
import etcdserverpb.WatchOuterClass.WatchResponse;
import grpc.health.v1.HealthGrpc;
import grpc.health.v1.HealthOuterClass.HealthCheckRequest;
import grpc.health.v1.HealthOuterClass.HealthCheckResponse;
import grpc.health.v1.HealthOuterClass.HealthCheckResponse.ServingStatus;
import grpc.reflection.v1.Reflection.ServerReflectionRequest;
import grpc.reflection.v1.Reflection.ServerReflectionResponse;
import grpc.reflection.v1.Reflection.ServiceResponse;
import grpc.reflection.v1.ServerReflectionGrpc;
import io.grpc.Channel;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status.Code;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.lang.reflect.Field;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import kvsecurepb.AuditGrpc;
import kvsecurepb.TenantOuterClass.AuditTailRequest;
import kvsecurepb.TenantOuterClass.AuditTailResponse;

/** The checks, by name. */
final class Checks {
  /** What may fail in any way. */
  interface Check {
    void run() throws Exception;
  }

  private final Channel channel;

  Checks(Channel channel) {
    this.channel = channel;
  }

  Map<String, Check> all() {
    Map<String, Check> all = new LinkedHashMap<>();
    all.put("unary", this::unary);
    all.put("server_stream", this::serverStream);
    all.put("bidirectional_stream", this::bidirectionalStream);
    all.put("large_messages", this::largeMessages);
    all.put("many_requests", this::manyRequests);
    all.put("many_events", this::manyEvents);
    all.put("stalled_reader", this::stalledReader);
    all.put("cancellation", this::cancellation);
    all.put("deadline", this::deadline);
    all.put("pings_permitted", this::pingsPermitted);
    all.put("pings_excessive", this::pingsExcessive);
    all.put("compression", this::compression);
    all.put("oversize", this::oversize);
    all.put("unknown", this::unknown);
    all.put("metadata", this::metadata);
    all.put("error_text", this::errorText);
    all.put("health", this::health);
    all.put("reflection", this::reflection);
    all.put("restart", this::restart);
    return all;
  }

  private static AuthenticateRequest login() {
    return AuthenticateRequest.newBuilder()
        .setName(told("USER"))
        .setPassword(told("PASSWORD"))
        .build();
  }

  private static KVGrpc.KVBlockingStub bearing(KVGrpc.KVBlockingStub stub, String token) {
    Metadata carried = new Metadata();
    carried.put(Metadata.Key.of("token", Metadata.ASCII_STRING_MARSHALLER), token);
    return stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(carried));
  }

  /** Calls with a certificate, and with a token in the metadata. */
  private void unary() throws Exception {
    put(kv(channel), "x", text("v"));
    ManagedChannel other = connect(false, builder -> builder);
    AuthenticateResponse entered = AuthGrpc.newBlockingStub(other).authenticate(login());
    expect(get(bearing(kv(other), entered.getToken()), "x").equals(text("v")), "another value");
    fails(
        Code.UNAUTHENTICATED, "invalid auth token", () -> get(bearing(kv(other), "wrong"), "x"));
    other.shutdownNow();
  }

  /** One request, many messages, and their end. */
  private void serverStream() {
    Iterator<AuditTailResponse> tail =
        AuditGrpc.newBlockingStub(channel)
            .withDeadlineAfter(CALL_S_MAX, TimeUnit.SECONDS)
            .tail(AuditTailRequest.newBuilder().setCount(10).build());
    int count = 0;
    while (tail.hasNext()) {
      count += tail.next().getRecordsCount();
    }
    expect(count == 10, count);
  }

  /** Questions and answers take turns on one stream; both ends close another. */
  private void bidirectionalStream() throws Exception {
    Dialogue<WatchRequest, WatchResponse> watching = watch(channel, "both");
    WatchProgressRequest.Builder progress = WatchProgressRequest.newBuilder();
    for (int number = 0; number < 20; number++) {
      put(kv(channel), "both/x", text("" + number));
      expect(seen(watching).equals(text("" + number)), number);
      watching.send(WatchRequest.newBuilder().setProgressRequest(progress).build());
      expect(watching.next().getEventsCount() == 0, "events");
    }
    WatchCancelRequest.Builder cancel = WatchCancelRequest.newBuilder().setWatchId(0);
    watching.send(WatchRequest.newBuilder().setCancelRequest(cancel).build());
    expect(watching.next().getCanceled(), "not cancelled");
    watching.cancel();
    Dialogue<LeaseKeepAliveRequest, LeaseKeepAliveResponse> keeping = keeping();
    for (long lease = 1; lease < 20; lease++) {
      keeping.send(LeaseKeepAliveRequest.newBuilder().setID(lease).build());
      expect(keeping.next().getID() == lease, lease);
    }
    keeping.halfClose();
    expect(keeping.next() == null, "more at the end");
  }

  private Dialogue<LeaseKeepAliveRequest, LeaseKeepAliveResponse> keeping() {
    return Dialogue.open(channel, LeaseGrpc.getLeaseKeepAliveMethod());
  }

  /** A megabyte comes and goes, four at a time. */
  private void largeMessages() throws Exception {
    CompletableFuture<?>[] moves = new CompletableFuture<?>[4];
    for (int number = 0; number < moves.length; number++) {
      String name = "large/" + number;
      ByteString value = text(Character.toString('a' + number).repeat(MEGABYTE));
      moves[number] =
          CompletableFuture.runAsync(
              () -> {
                put(kv(channel), name, value);
                expect(get(kv(channel), name).equals(value), name);
              });
    }
    CompletableFuture.allOf(moves).get();
  }

  /** Ten thousand small messages each way on one stream. */
  private void manyRequests() throws Exception {
    long lease =
        LeaseGrpc.newBlockingStub(channel)
            .leaseGrant(LeaseGrantRequest.newBuilder().setTTL(600).build())
            .getID();
    LeaseKeepAliveRequest request = LeaseKeepAliveRequest.newBuilder().setID(lease).build();
    Dialogue<LeaseKeepAliveRequest, LeaseKeepAliveResponse> keeping = keeping();
    for (int sent = 0; sent < MANY; sent++) {
      keeping.send(request);
    }
    keeping.halfClose();
    for (int number = 0; number < MANY; number++) {
      expect(keeping.next().getTTL() == 600, number);
    }
    expect(keeping.next() == null, "more at the end");
  }

  /** Ten thousand events come in order while they happen. */
  private void manyEvents() throws Exception {
    Dialogue<WatchRequest, WatchResponse> watching = watch(channel, "many");
    CompletableFuture<Void> filled = CompletableFuture.runAsync(() -> fill(channel, "many", 10));
    inOrder(watching, "many", 10);
    filled.get();
  }

  /** Who reads nothing for a while gets all of twenty megabytes after that. */
  private void stalledReader() throws Exception {
    Dialogue<WatchRequest, WatchResponse> watching = watch(channel, "stalled");
    fill(channel, "stalled", 2_048);
    Thread.sleep(1_000);
    // Others on the same connection are served meanwhile.
    put(kv(channel), "x", text("beside"));
    expect(get(kv(channel), "x").equals(text("beside")), "another value");
    inOrder(watching, "stalled", 2_048);
  }

  /** The server lets go of what is given up, and serves the others on the connection. */
  private void cancellation() throws Exception {
    Dialogue<WatchRequest, WatchResponse> kept = watch(channel, "cancelled");
    int before = handled("Watch");
    for (int count = 0; count < 20; count++) {
      watch(channel, "cancelled").cancel();
      ListenableFuture<AuthenticateResponse> call =
          AuthGrpc.newFutureStub(channel).authenticate(login());
      Thread.sleep(1);
      expect(call.cancel(true), "it was over");
    }
    untilHandled("Watch", before + 20);
    put(kv(channel), "cancelled/x", text("v"));
    expect(seen(kept).equals(text("v")), "another value");
    kept.cancel();
  }

  /** A call ends at its deadline, at the server as well. */
  private void deadline() throws Exception {
    int before = handled("LeaseKeepAlive");
    for (int count = 0; count < 5; count++) {
      Dialogue<LeaseKeepAliveRequest, LeaseKeepAliveResponse> late =
          Dialogue.open(
              channel,
              LeaseGrpc.getLeaseKeepAliveMethod(),
              new Metadata(),
              soon().withDeadlineAfter(100, TimeUnit.MILLISECONDS));
      fails(Code.DEADLINE_EXCEEDED, "", late::next);
      AuthGrpc.AuthBlockingStub hurried =
          AuthGrpc.newBlockingStub(channel).withDeadlineAfter(2, TimeUnit.MILLISECONDS);
      fails(Code.DEADLINE_EXCEEDED, "", () -> hurried.authenticate(login()));
    }
    untilHandled("LeaseKeepAlive", before + 5);
    put(kv(channel), "late", ByteString.EMPTY);
  }

  private static ManagedChannel pinging(int intervalMs) throws Exception {
    Field interval = NettyChannelBuilder.class.getDeclaredField("keepAliveTimeNanos");
    // It pings no more often than every ten seconds, for which no test has time.
    interval.setAccessible(true);
    return connect(
        true,
        builder -> {
          builder.keepAliveTime(1, TimeUnit.MINUTES).keepAliveTimeout(5, TimeUnit.SECONDS);
          try {
            interval.setLong(builder, TimeUnit.MILLISECONDS.toNanos(intervalMs));
          } catch (IllegalAccessException error) {
            throw new AssertionError(error);
          }
          return builder;
        });
  }

  /** Pings as often as they may come leave a connection alone. */
  private void pingsPermitted() throws Exception {
    ManagedChannel other = pinging(600);
    Dialogue<WatchRequest, WatchResponse> watching = watch(other, "pinged");
    Thread.sleep(3_200);
    put(kv(other), "pinged/x", text("v"));
    expect(seen(watching).equals(text("v")), "another value");
    other.shutdownNow();
  }

  /** Pings that come too often end the connection, with gRPC's word for it. */
  private void pingsExcessive() throws Exception {
    ManagedChannel other = pinging(100);
    Dialogue<WatchRequest, WatchResponse> watching = watch(other, "pinged");
    // What HTTP/2's ENHANCE_YOUR_CALM becomes.
    fails(Code.RESOURCE_EXHAUSTED, "too_many_pings", watching::next);
    put(kv(other).withWaitForReady(), "pinged/x", text("v"));
    other.shutdownNow();
  }

  /** Requests may be compressed, on a stream too, and answers may be. */
  private void compression() throws Exception {
    ByteString value = text("compress me ".repeat(50_000));
    put(kv(channel).withCompression("gzip"), "gzip", value);
    expect(get(kv(channel).withCompression("gzip"), "gzip").equals(value), "another value");
    Dialogue<WatchRequest, WatchResponse> watching =
        watch(channel, "gzip", 0, soon().withCompression("gzip"));
    put(kv(channel), "gzip/x", value);
    expect(seen(watching).equals(value), "another value");
    watching.cancel();
  }

  private Void puts(int size) {
    put(kv(channel), "x", ByteString.copyFrom(new byte[size]));
    return null;
  }

  /** Too large a request is refused in etcd's words, too large a message in Go's. */
  private void oversize() throws Exception {
    fails(Code.INVALID_ARGUMENT, "etcdserver: request is too large", () -> puts(1_600_000));
    fails(
        Code.RESOURCE_EXHAUSTED,
        "grpc: received message larger than max (30000",
        () -> puts(3_000_000));
    puts(1);
  }

  private static MethodDescriptor<RangeRequest, ?> foreign(String path) {
    return KVGrpc.getRangeMethod().toBuilder().setFullMethodName(path).build();
  }

  private Object calls(String path) {
    return ClientCalls.blockingUnaryCall(
        channel, foreign(path), soon(), RangeRequest.getDefaultInstance());
  }

  /** What there is not is unimplemented. */
  private void unknown() throws Exception {
    fails(
        Code.UNIMPLEMENTED,
        "unknown method Steal for service etcdserverpb.KV",
        () -> calls("etcdserverpb.KV/Steal"));
    fails(Code.UNIMPLEMENTED, "unknown service no.Service", () -> calls("no.Service/Get"));
    MethodDescriptor<RangeRequest, ?> stream =
        foreign("no.Service/Get").toBuilder()
            .setType(MethodDescriptor.MethodType.BIDI_STREAMING)
            .build();
    fails(Code.UNIMPLEMENTED, "", Dialogue.open(channel, stream)::next);
  }

  /** Metadata of any kind is taken: several values of a name, and bytes. */
  private void metadata() throws Exception {
    byte[] all = new byte[256];
    for (int number = 0; number < all.length; number++) {
      all[number] = (byte) number;
    }
    Metadata carried = new Metadata();
    for (byte[] value : List.of(all, new byte[0], new byte[1])) {
      carried.put(Metadata.Key.of("trace-bin", Metadata.BINARY_BYTE_MARSHALLER), value);
    }
    for (String value : List.of("one", "two, three")) {
      carried.put(Metadata.Key.of("trace", Metadata.ASCII_STRING_MARSHALLER), value);
    }
    put(
        kv(channel).withInterceptors(MetadataUtils.newAttachHeadersInterceptor(carried)),
        "x",
        text("v"));
    Dialogue<LeaseKeepAliveRequest, LeaseKeepAliveResponse> keeping =
        Dialogue.open(channel, LeaseGrpc.getLeaseKeepAliveMethod(), carried, soon());
    keeping.send(LeaseKeepAliveRequest.newBuilder().setID(1).build());
    expect(keeping.next().getTTL() == 0, "a lease");
    keeping.cancel();
  }

  /** The text of an error arrives as it was meant, whatever characters are in it. */
  private void errorText() throws Exception {
    fails(
        Code.UNIMPLEMENTED,
        "unknown service nö.Sérvice%20",
        () -> calls(World.asBytes("nö.Sérvice%20/Get")));
  }

  /** The standard health service answers once, and as long as somebody watches. */
  private void health() throws Exception {
    HealthGrpc.HealthBlockingStub stub =
        HealthGrpc.newBlockingStub(channel).withDeadlineAfter(CALL_S_MAX, TimeUnit.SECONDS);
    HealthCheckRequest any = HealthCheckRequest.getDefaultInstance();
    HealthCheckRequest nobody = HealthCheckRequest.newBuilder().setService("no.Service").build();
    expect(stub.check(any).getStatus() == ServingStatus.SERVING, "not serving");
    fails(Code.NOT_FOUND, "unknown service", () -> stub.check(nobody));
    Map<HealthCheckRequest, ServingStatus> asked =
        Map.of(any, ServingStatus.SERVING, nobody, ServingStatus.SERVICE_UNKNOWN);
    for (HealthCheckRequest request : asked.keySet()) {
      Dialogue<HealthCheckRequest, HealthCheckResponse> watching =
          Dialogue.open(channel, HealthGrpc.getWatchMethod());
      watching.send(request);
      watching.halfClose();
      expect(watching.next().getStatus() == asked.get(request), request);
      watching.cancel();
    }
  }

  /** The server tells what it speaks. */
  private void reflection() throws Exception {
    Dialogue<ServerReflectionRequest, ServerReflectionResponse> asking =
        Dialogue.open(channel, ServerReflectionGrpc.getServerReflectionInfoMethod());
    asking.send(ServerReflectionRequest.newBuilder().setListServices("*").build());
    List<String> names =
        asking.next().getListServicesResponse().getServiceList().stream()
            .map(ServiceResponse::getName)
            .toList();
    List<String> expected =
        List.of("etcdserverpb.KV", "etcdserverpb.Watch", "grpc.health.v1.Health");
    expect(names.containsAll(expected), names);
    asking.send(
        ServerReflectionRequest.newBuilder().setFileContainingSymbol("etcdserverpb.KV").build());
    asking.halfClose();
    int files = asking.next().getFileDescriptorResponse().getFileDescriptorProtoCount();
    expect(files > 0, "no files");
    expect(asking.next() == null, "more at the end");
  }

  /** A server that goes away in good order and comes back is found again by the same channel. */
  private void restart() throws Exception {
    Dialogue<WatchRequest, WatchResponse> watching = watch(channel, "restart");
    put(kv(channel), "restart/x", text("before"));
    expect(seen(watching).equals(text("before")), "another value");
    System.out.println("restart");
    System.in.read();
    fails(Code.UNAVAILABLE, "", watching::next);
    ByteString before = get(kv(channel).withWaitForReady(), "restart/x");
    expect(before.equals(text("before")), before);
    put(kv(channel), "restart/x", text("after"));
    Dialogue<WatchRequest, WatchResponse> again = watch(channel, "restart", 1, soon());
    expect(again.next().getEventsCount() == 2, "not both events");
    again.cancel();
  }
}
