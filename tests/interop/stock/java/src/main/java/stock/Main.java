// Checks of stock grpc-java, as a client of a real kvsecure server; peers.py says how it is called.
package stock;

import io.grpc.ManagedChannel;
import java.util.Locale;

/** Does checks in a row over one channel, and says how each of them ended. */
public final class Main {
  private Main() {}

  /** Runs the checks that are named. */
  public static void main(String[] names) throws Exception {
    ManagedChannel channel = World.connect(true, builder -> builder);
    Checks checks = new Checks(channel);
    for (String name : names) {
      long begun = System.nanoTime();
      String verdict = "passed";
      try {
        checks.all().get(name).run();
      } catch (Exception | AssertionError error) {
        System.err.print(name + ": ");
        error.printStackTrace();
        verdict = "failed";
      }
      double seconds = (System.nanoTime() - begun) / 1e9;
      System.out.println(String.format(Locale.ROOT, "%s %s %.2f", verdict, name, seconds));
    }
    channel.shutdownNow();
    // What a failed check has left open would keep this program from ending.
    System.exit(0);
  }
}
