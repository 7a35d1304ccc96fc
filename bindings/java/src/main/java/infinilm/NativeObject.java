package infinilm;

import java.lang.ref.Cleaner;

/**
 * An object of the engine. Closing it lets go of the memory at once, from any thread, also while a call is under way (which
 * ends as if nothing had happened); what is not closed goes with the garbage collector.
 */
public abstract class NativeObject implements AutoCloseable {
  private static final Cleaner CLEANER = Cleaner.create();

  /** The cell in C++ that holds a share in the object: never 0, freed when this is unreachable. */
  final long swigCPtr;

  private final Cell cell;

  NativeObject(long cell, long bytes) {
    swigCPtr = cell;
    this.cell = keep(this, cell, bytes);
  }

  /** Frees the cell once `owner` is unreachable. */
  private static Cell keep(Object owner, long cell, long bytes) {
    Cell kept = new Cell(cell, bytes);
    CLEANER.register(owner, kept);
    NativeMemory.added(bytes);
    return kept;
  }

  /** Closes `object` once `owner` is unreachable. */
  static void whenUnreachable(Object owner, NativeObject object) {
    CLEANER.register(owner, object::close);
  }

  /** Further calls of methods throw IllegalStateException; closing again does nothing. */
  @Override
  public void close() {
    Engine.emptyCell(swigCPtr);
    cell.release();
  }

  static final class Cell implements Runnable {
    private final long address;
    private long bytes;

    private Cell(long address, long bytes) {
      this.address = address;
      this.bytes = bytes;
    }

    synchronized void release() {
      NativeMemory.removed(bytes);
      bytes = 0;
    }

    @Override
    public void run() {
      release();
      Engine.freeCell(address);
    }
  }
}
