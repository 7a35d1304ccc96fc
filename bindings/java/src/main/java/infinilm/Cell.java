package infinilm;

/**
 * The cell in C++ that holds a share in an object of the engine. A class of its own rather than its address, so that a
 * constructor from a cell is never taken for one of the engine's own with a number.
 */
final class Cell implements Runnable {
  /** Never 0. */
  final long address;

  private long bytes;

  Cell(long address) {
    this.address = address;
  }

  /** What the object holds outside of the heap; said once. */
  synchronized void weighs(long bytes) {
    this.bytes = bytes;
    NativeMemory.added(bytes);
  }

  /** Lets go of the object; calls that are under way have shares of their own. */
  void empty() {
    Engine.emptyCell(address);
    release();
  }

  private synchronized void release() {
    NativeMemory.removed(bytes);
    bytes = 0;
  }

  /** When nobody can reach the object any more. */
  @Override
  public void run() {
    release();
    Engine.freeCell(address);
  }
}
