package infinilm;

/** Edits the logits [V] of the next token in place; {@code tokens} are prompt and continuation so far. */
@FunctionalInterface
public interface LogitsProcessor {
  void accept(long[] tokens, Tensor logits) throws Exception;
}
