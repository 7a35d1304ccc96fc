package infinilm;

import java.util.Set;

/** A callback that a registry's or generation's Java object holds, and C++ holds weakly. */
final class Slot {
  final Object callback;
  private final Set<Slot> owner;

  Slot(Object callback, Set<Slot> owner) {
    this.callback = callback;
    this.owner = owner;
    owner.add(this);
  }

  void drop() {
    owner.remove(this);
  }
}
