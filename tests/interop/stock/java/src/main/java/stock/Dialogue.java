package stock;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** A stream of which nothing is read before it is asked for. */
final class Dialogue<Q, A> extends ClientCall.Listener<A> {
  private final BlockingQueue<Object> came = new LinkedBlockingQueue<>();
  private final ClientCall<Q, A> call;

  private Dialogue(Channel channel, MethodDescriptor<Q, A> method, CallOptions how) {
    call = channel.newCall(method, how);
  }

  static <Q, A> Dialogue<Q, A> open(
      Channel channel, MethodDescriptor<Q, A> method, Metadata carried, CallOptions how) {
    Dialogue<Q, A> made = new Dialogue<>(channel, method, how);
    made.call.start(made, carried);
    made.call.setMessageCompression(how.getCompressor() != null);
    return made;
  }

  static <Q, A> Dialogue<Q, A> open(Channel channel, MethodDescriptor<Q, A> method) {
    return open(channel, method, new Metadata(), World.soon());
  }

  @Override
  public void onMessage(A message) {
    came.add(message);
  }

  @Override
  public void onClose(Status status, Metadata trailers) {
    came.add(status);
  }

  void send(Q message) {
    call.sendMessage(message);
  }

  void halfClose() {
    call.halfClose();
  }

  void cancel() {
    call.cancel("given up", null);
  }

  /** Returns the next message, or null at the end of a stream that ends well. */
  @SuppressWarnings("unchecked")
  A next() throws InterruptedException {
    call.request(1);
    Object next = came.poll(World.CALL_S_MAX + 5, TimeUnit.SECONDS);
    if (next instanceof Status status) {
      // Whoever asks again hears it again.
      came.add(next);
      if (!status.isOk()) {
        throw status.asRuntimeException();
      }
      return null;
    }
    World.expect(next != null, "nothing came");
    return (A) next;
  }
}
