package infinilm;

import java.lang.ref.Cleaner;

/**
 * An object of the engine. Closing it lets go of the memory at once, from any thread, also while a call is under way (which
 * ends as if nothing had happened); what is not closed goes with the garbage collector.
 */
public abstract class NativeObject implements AutoCloseable {
  private static final Cleaner CLEANER = Cleaner.create();

  /** The cell's address: never 0, freed when this is unreachable. */
  final long swigCPtr;

  private final Cell cell;

  NativeObject(Cell cell, long bytes) {
    swigCPtr = cell.address;
    this.cell = cell;
    cell.weighs(bytes);
    keep(this, cell);
  }

  /** Frees the cell once `owner` is unreachable. */
  private static void keep(Object owner, Cell cell) {
    CLEANER.register(owner, cell);
  }

  /** Closes `object` once `owner` is unreachable. */
  static void whenUnreachable(Object owner, NativeObject object) {
    CLEANER.register(owner, object::close);
  }

  /** Further calls of methods throw IllegalStateException; closing again does nothing. */
  @Override
  public void close() {
    cell.empty();
  }
}
