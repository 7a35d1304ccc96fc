package infinilm;

/** Hears an intermediate tensor. */
@FunctionalInterface
public interface HookCallback {
  /**
   * {@code tensor} is the engine's own memory: writing into it edits the computation from here on. It may be kept. {@code
   * layer} is -1 where there is none. What this throws leaves the call of the model as the same object.
   */
  void accept(String name, Tensor tensor, int layer) throws Exception;
}
