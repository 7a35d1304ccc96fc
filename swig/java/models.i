// The registry, models and generations: their Java objects hold the callbacks, which C++ holds weakly.
%javamethodmodifiers infinilm::HookRegistry::register_hook "private";
%typemap(javacode) infinilm::HookRegistry %{
  private final java.util.Set<Slot> slots = java.util.concurrent.ConcurrentHashMap.newKeySet();

  /**
   * Calls {@code callback} at every point that {@code name} matches: a hook point, an alias of one, or a glob over the
   * whole name ({@code *}, {@code ?}, {@code [...]}, {@code #} for a number). Writing into the tensor edits the computation
   * from there on; what the callback throws leaves {@code forward} as the same object. The same name again replaces the
   * callback and keeps its place.
   */
  public HookHandle registerHook(String name, HookCallback callback) {
    Slot slot = new Slot(java.util.Objects.requireNonNull(callback, "callback"), slots);
    try {
      return registerHook(name, slot);
    } catch (Throwable error) {
      slot.drop();
      throw error;
    }
  }
%}

%javamethodmodifiers infinilm::LlamaForCausalLM::from_pretrained "private";
%rename(read) infinilm::LlamaForCausalLM::from_pretrained;
%rename(attach) infinilm::LlamaForCausalLM::set_hook_registry;
%rename(attached) infinilm::LlamaForCausalLM::hook_registry;
%javamethodmodifiers infinilm::LlamaForCausalLM::set_hook_registry "private";
%javamethodmodifiers infinilm::LlamaForCausalLM::hook_registry "private";
%typemap(javacode) infinilm::LlamaForCausalLM %{
  private HookRegistry registry; // which holds the callbacks: the core's registry does not
  private String directory;

  /** Reads a HuggingFace directory as it is. */
  public static LlamaForCausalLM fromPretrained(java.nio.file.Path directory) {
    return fromPretrained(directory, new LoadOptions());
  }

  public static LlamaForCausalLM fromPretrained(java.nio.file.Path directory, LoadOptions options) {
    Quantization rounding = new Quantization(options.quantization, options.groupSize, options.activations);
    LlamaForCausalLM model = read(directory.toString(), options.device, options.dtype, options.progress,
        options.kvCacheDtype, rounding);
    model.directory = directory.toString();
    return model;
  }

  /** Its hooks fire in this model from now on; null detaches. */
  public void setHookRegistry(HookRegistry registry) {
    setHookRegistry(registry, "");
  }

  /** With a prefix p the points are called p_layer0_.... */
  public void setHookRegistry(HookRegistry registry, String prefix) {
    attach(registry, prefix);
    this.registry = registry;
  }

  /** The registry that was set, the same object. */
  public HookRegistry getHookRegistry() {
    return registry;
  }

  /** The defaults of generate: of the directory, else the config's ids. */
  public GenerationConfig generationConfig() {
    LlamaConfig config = config();
    if (directory != null) {
      return GenerationConfig.fromPretrained(directory, config);
    }
    GenerationConfig defaults = new GenerationConfig();
    defaults.setEosTokenId(config.getEosTokenId());
    defaults.setPadTokenId(config.getPadTokenId());
    return defaults;
  }

  /** Logits, float32 [tokens, V], of one sequence of ids. */
  public Tensor forward(long... ids) {
    return forward(Tensor.of(ids));
  }

  /** Prompt and continuation; what is not said in {@code config} is as in {@link #generationConfig}. */
  public long[] generate(long[] prompt, GenerationConfig config) {
    return generate(prompt, config, null);
  }

  /** {@code listener} hears each token as it is computed, and ends the sequence by returning false. */
  public long[] generate(long[] prompt, GenerationConfig config, TokenListener listener) {
    return generate(new long[][] {prompt}, config, listener)[0];
  }

  /** Several prompts, of any lengths, in one batch. */
  public long[][] generate(long[][] prompts, GenerationConfig config, TokenListener listener) {
    try (Generation run = Generation.of(this, prompts, config, java.util.List.of(), null)) {
      return run.finish(listener);
    }
  }
%}

%javamethodmodifiers infinilm::Generation::Generation "private";
%typemap(javacode) infinilm::Generation %{
  private final java.util.Set<Slot> slots = java.util.concurrent.ConcurrentHashMap.newKeySet();
  private LlamaForCausalLM model; // which holds its registry

  /** {@code processors}: none, or one for each prompt (null for none); {@code cache} may be null. */
  public static Generation of(LlamaForCausalLM model, long[][] prompts, GenerationConfig config,
      java.util.List<LogitsProcessor> processors, KvCache cache) {
    java.util.Set<Slot> slots = java.util.concurrent.ConcurrentHashMap.newKeySet();
    Slot[] each = processors.stream().map(p -> p == null ? null : new Slot(p, slots)).toArray(Slot[]::new);
    Generation run = new Generation(model, prompts, config, each, cache);
    run.slots.addAll(slots);
    run.model = model;
    return run;
  }

  /** Runs to the end and gives all sequences; {@code listener} may be null. */
  public long[][] finish(TokenListener listener) {
    int count = (int) size();
    long[] seen = new long[count];
    for (int i = 0; i < count; i++) {
      seen[i] = promptLength(i);
    }
    while (!done()) {
      step();
      for (int i = 0; listener != null && i < count; i++) {
        for (long id : tokensFrom(i, seen[i])) {
          seen[i]++;
          if (!listener.accept(id, i)) {
            finish(i, "stop");
          }
        }
      }
    }
    long[][] sequences = new long[count][];
    for (int i = 0; i < count; i++) {
      sequences[i] = tokens(i);
    }
    return sequences;
  }
%}

