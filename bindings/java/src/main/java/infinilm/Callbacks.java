package infinilm;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.NoSuchElementException;
import java.util.concurrent.CancellationException;
import java.util.function.Consumer;

/** What C++ calls (swig/java/support). */
final class Callbacks {
  static volatile Consumer<String> warnings = Callbacks::logWarning;

  private Callbacks() {}

  static void hook(Object slot, byte[] name, long tensor, int layer) throws Throwable {
    ((HookCallback) ((Slot) slot).callback).accept(Values.text(name), new Tensor(new Cell(tensor)), layer);
  }

  static void process(Object slot, long[] tokens, long logits) throws Throwable {
    ((LogitsProcessor) ((Slot) slot).callback).accept(tokens, new Tensor(new Cell(logits)));
  }

  static void progress(Object listener, long done, long total) throws Throwable {
    ((ProgressListener) listener).accept(done, total);
  }

  static void drop(Object slot) {
    ((Slot) slot).drop();
  }

  static void warn(byte[] text) {
    warnings.accept(Values.text(text));
  }

  /** Java's way to stop a thread; its flag stays set. */
  static boolean interrupted() {
    return Thread.currentThread().isInterrupted();
  }

  /** The exception for a kind of infinilm/error.hpp, in the order of Kind in errors.hpp. */
  static Throwable error(int kind, byte[] text) {
    String message = Values.text(text);
    return switch (kind) {
      case 0, 1 -> new IllegalArgumentException(message);
      case 2 -> new IndexOutOfBoundsException(message);
      case 3 -> new NoSuchElementException(message);
      case 4 -> new ArithmeticException(message);
      case 5 -> new UncheckedIOException(message, new FileNotFoundException(message));
      case 6 -> new UncheckedIOException(message, new IOException(message));
      case 7 -> new CancellationException(message);
      case 8 -> new OutOfMemoryError(message);
      case 10 -> new NullPointerException(message);
      default -> new IllegalStateException(message);
    };
  }

  private static void logWarning(String text) {
    String where = StackWalker.getInstance()
        .walk(frames -> frames.filter(f -> !f.getClassName().startsWith("infinilm.")).findFirst())
        .map(frame -> " (" + frame.getFileName() + ":" + frame.getLineNumber() + ")")
        .orElse("");
    System.getLogger("infinilm").log(System.Logger.Level.WARNING, text + where);
  }
}
