package infinilm;

/** Hears how many bytes of a checkpoint are read. */
@FunctionalInterface
public interface ProgressListener {
  void accept(long done, long total) throws Exception;
}
