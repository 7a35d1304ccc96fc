package infinilm;

/** Hears each new token of a generation; false ends its sequence. */
@FunctionalInterface
public interface TokenListener {
  boolean accept(long id, int sequence);
}
