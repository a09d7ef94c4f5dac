// Checks of jetcd, Java's etcd client, against a real kvsecure server; peers.py says how it is
// called.
package jetcd;

import io.etcd.jetcd.Client;
import java.util.Locale;

/** Does checks in a row with one client, and says how each of them ended. */
public final class Main {
  private Main() {}

  /** Runs the checks that are named. */
  public static void main(String[] names) throws Exception {
    String user = System.getenv("KVSECURE_USER");
    Client client = Checks.connect(user, System.getenv("KVSECURE_PASSWORD"));
    Checks checks = new Checks(client);
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
    // What a failed check has left open would keep this program from ending.
    System.exit(0);
  }
}
