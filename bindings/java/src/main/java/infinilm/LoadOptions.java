package infinilm;

/** How {@link LlamaForCausalLM#fromPretrained} reads a directory: {@code new LoadOptions().quantization("int4")}. */
public final class LoadOptions {
  String device = "cpu";
  DataType dtype;
  DataType kvCacheDtype;
  String quantization = "";
  long groupSize;
  String activations = "";
  ProgressListener progress;

  /** "cpu", "cuda", "cuda:1". */
  public LoadOptions device(String device) {
    this.device = device;
    return this;
  }

  /** What to compute in; null for what the checkpoint's config names. */
  public LoadOptions dtype(DataType dtype) {
    this.dtype = dtype;
    return this;
  }

  /** What the caches keep keys and values in: F32, BF16 or I8; null for what is computed in. */
  public LoadOptions kvCacheDtype(DataType dtype) {
    kvCacheDtype = dtype;
    return this;
  }

  /** "int8" or "int4": rounds the weights while they are loaded. */
  public LoadOptions quantization(String name) {
    quantization = name;
    return this;
  }

  /** Inputs that share a scale, a multiple of 32. If it is not said: 32 for int4, a whole row for int8. */
  public LoadOptions groupSize(long inputs) {
    if (inputs <= 0) {
      throw new IllegalArgumentException("groupSize: expected a multiple of 32, found " + inputs);
    }
    groupSize = inputs;
    return this;
  }

  /** "int8": rounds also what quantised weights are multiplied with, for a faster prefill. */
  public LoadOptions activations(String name) {
    activations = name;
    return this;
  }

  /** Hears how many bytes are read; may be null. */
  public LoadOptions progress(ProgressListener listener) {
    progress = listener;
    return this;
  }
}
