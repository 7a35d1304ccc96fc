package infinilm;

import java.util.concurrent.atomic.AtomicLong;

/**
 * What unclosed tensors hold outside of the heap. The collector sees a few bytes where there are megabytes; as for direct
 * buffers, it is asked to look when they have doubled.
 */
final class NativeMemory {
  private static final long LEAST = 256L << 20;
  private static final AtomicLong held = new AtomicLong();
  private static final AtomicLong limit = new AtomicLong(LEAST);

  private NativeMemory() {}

  static void added(long bytes) {
    if (bytes == 0) {
      return;
    }
    long now = held.addAndGet(bytes);
    long before = limit.get();
    if (now > before && limit.compareAndSet(before, 2 * now)) {
      System.gc();
      limit.set(Math.max(LEAST, 2 * held.get()));
    }
  }

  static void removed(long bytes) {
    held.addAndGet(-bytes);
  }
}
