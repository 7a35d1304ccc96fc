import infinilm.DataType;
import infinilm.HookRegistry;
import infinilm.LlamaConfig;
import infinilm.Tensor;
import java.nio.FloatBuffer;
import java.util.Locale;

/** Nanoseconds of small calls in Java, after the compiler has warmed up. Prints JSON. */
class Measure {
  static final int COUNT = 100_000;
  static final int REPEATS = 15;
  static double sink; // so that nothing is found to be without effect

  static double timed(Runnable body) {
    double best = Double.POSITIVE_INFINITY;
    for (int i = 0; i < REPEATS; i++) {
      long begin = System.nanoTime();
      body.run();
      best = Math.min(best, System.nanoTime() - begin);
    }
    return best / COUNT;
  }

  public static void main(String[] arguments) {
    LlamaConfig config = new LlamaConfig();
    HookRegistry registry = new HookRegistry();
    Tensor tensor = Tensor.empty(new long[] {1024}, DataType.F32);
    registry.registerHook("point", (name, seen, layer) -> { });
    FloatBuffer values = tensor.floats();

    double attribute = timed(() -> {
      for (int i = 0; i < COUNT; i++) {
        sink += config.getHiddenSize();
      }
    });
    double callback = timed(() -> {
      for (int i = 0; i < COUNT; i++) {
        registry.callHook("point", tensor, 0);
      }
    });
    double view = timed(() -> {
      for (int i = 0; i < COUNT; i++) {
        sink += tensor.floats().limit();
      }
    });
    double element = timed(() -> {
      for (int i = 0; i < COUNT; i++) {
        sink += values.get(i & 1023);
      }
    });
    System.out.printf(Locale.ROOT,
        "{\"attribute\": %.2f, \"callback\": %.2f, \"view\": %.2f, \"element\": %.2f}%n",
        attribute, callback, view, element);
  }
}
