// What Java's classes look like: names in its style, close() and a cleaner in place of finalisers (infinilm.NativeObject),
// and the methods that Java adds.
%ignore infinilm::DataType;  // infinilm.DataType
%rename("%(lowercamelcase)s", %$isfunction) "";
%rename("%(lowercamelcase)s", %$isvariable) "";
%ignore infinilm::Tensor::empty(Shape);  // the one that swig/common adds
%rename(toString) infinilm::Tensor::str;
%rename(toString) infinilm::Device::str;

%pragma(java) jniclassclassmodifiers = "final class"
%pragma(java) jniclasscode = %{
  static {
    NativeLibrary.load();
  }
%}

%typemap(javabase) SWIGTYPE "NativeObject"
%typemap(javainterfaces) SWIGTYPE ""
%typemap(javabody) SWIGTYPE %{
  $javaclassname(long cell) {
    super(cell, 0);
  }

  static long getCPtr($javaclassname object) {
    return object == null ? 0 : object.swigCPtr;
  }
%}
%typemap(javaconstruct) SWIGTYPE {
    this($imcall);
  }
%typemap(javafinalize) SWIGTYPE ""
%typemap(javadestruct, methodname="delete", methodmodifiers="") SWIGTYPE ""
%nodefaultdtor;
%ignore infinilm::ModelConfig::~ModelConfig;
%ignore infinilm::LlamaForCausalLM::~LlamaForCausalLM;
%ignore infinilm::Generation::~Generation;
%define INFINILM_JAVA_INTERNAL(function)
%javamethodmodifiers infinilm_java::function "final";  // and not public
%enddef
INFINILM_JAVA_INTERNAL(emptyCell)
INFINILM_JAVA_INTERNAL(freeCell)
INFINILM_JAVA_INTERNAL(sameTensor)
INFINILM_JAVA_INTERNAL(tensorMemory)
INFINILM_JAVA_INTERNAL(borrowMemory)
%inline %{
namespace infinilm_java {
void emptyCell(jlong cell) { empty(cell); }
void freeCell(jlong cell) { free_cell(cell); }
}
%}

// A cell knows one type: LlamaConfig has its base's fields itself.
%ignore infinilm::ModelConfig;
%warnfilter(401) infinilm::LlamaConfig;
%define INFINILM_JAVA_BASE_FIELD(Type, name)
%extend infinilm::LlamaConfig { Type name; }
%{
static Type infinilm_LlamaConfig_##name##_get(infinilm::LlamaConfig* self) { return self->name; }
static void infinilm_LlamaConfig_##name##_set(infinilm::LlamaConfig* self, const Type& value) { self->name = value; }
%}
%enddef
INFINILM_JAVA_BASE_FIELD(infinilm::DataType, dtype)
INFINILM_JAVA_BASE_FIELD(std::string, model_type)
INFINILM_JAVA_BASE_FIELD(std::string, name_or_path)

%define INFINILM_JAVA_EQUALITY(Class)
%rename(sameAs) infinilm::Class::equals;
%javamethodmodifiers infinilm::Class::equals "private";
%enddef
INFINILM_JAVA_EQUALITY(Device)
INFINILM_JAVA_EQUALITY(GenerationConfig)
INFINILM_JAVA_EQUALITY(LlamaConfig)
%typemap(javacode) infinilm::Device %{
  @Override
  public boolean equals(Object other) {
    return other instanceof Device same && sameAs(same);
  }

  @Override
  public int hashCode() {
    return toString().hashCode();
  }
%}
%typemap(javacode) infinilm::GenerationConfig %{
  /** One id or several. */
  public void setEosTokenId(long first, long... more) {
    setEosTokenId(Values.join(first, more));
  }

  public void setStopTokenIds(long first, long... more) {
    setStopTokenIds(Values.join(first, more));
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof GenerationConfig same && sameAs(same);
  }

  @Override
  public int hashCode() {
    return toJson().hashCode();
  }

  @Override
  public String toString() {
    return "GenerationConfig " + toJson();
  }
%}

%rename(ropeScalingJson) infinilm::LlamaConfig::rope_scaling_json;
%javamethodmodifiers infinilm::LlamaConfig::rope_scaling_json "private";
%javamethodmodifiers infinilm::LlamaConfig::set_rope_scaling_json "private";
%typemap(javacode) infinilm::LlamaConfig %{
  /** HF's RoPE scaling, a copy: set it to change it. null for plain RoPE. */
  public java.util.Map<String, Object> getRopeScaling() {
    return Json.decodeObject(ropeScalingJson());
  }

  public void setRopeScaling(java.util.Map<String, ?> value) {
    setRopeScalingJson(Json.encode(value));
  }

  /** One id or several. */
  public void setBosTokenId(long first, long... more) {
    setBosTokenId(Values.join(first, more));
  }

  public void setEosTokenId(long first, long... more) {
    setEosTokenId(Values.join(first, more));
  }

  /** Reads directory/config.json. */
  public static LlamaConfig fromPretrained(java.nio.file.Path directory) {
    return fromPretrained(directory.toString());
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof LlamaConfig same && sameAs(same);
  }

  @Override
  public int hashCode() {
    return toJson().hashCode();
  }

  @Override
  public String toString() {
    return "LlamaConfig " + toJson();
  }
%}

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

// Tensors: see infinilm.NativeMemory for what their garbage weighs.
%typemap(javabody) infinilm::Tensor %{
  Tensor(long cell) {
    super(cell, EngineJNI.Tensor_nbytes_get(cell, null));
  }

  static long getCPtr(Tensor object) {
    return object == null ? 0 : object.swigCPtr;
  }
%}
%typemap(javacode) infinilm::Tensor %{
  /** The memory itself, in the machine's byte order: zero copy. It stays alive as long as this buffer or a view of it. */
  public java.nio.ByteBuffer bytes() {
    java.nio.ByteBuffer memory = Buffers.of(this);
    return getReadOnly() ? memory.asReadOnlyBuffer().order(java.nio.ByteOrder.nativeOrder()) : memory;
  }

  /** {@link #bytes} of a float32 tensor. */
  public java.nio.FloatBuffer floats() {
    return Buffers.check(this, DataType.F32).bytes().asFloatBuffer();
  }

  /** {@link #bytes} of a float64 tensor. */
  public java.nio.DoubleBuffer doubles() {
    return Buffers.check(this, DataType.F64).bytes().asDoubleBuffer();
  }

  /** {@link #bytes} of an int32 tensor. */
  public java.nio.IntBuffer ints() {
    return Buffers.check(this, DataType.I32).bytes().asIntBuffer();
  }

  /** {@link #bytes} of an int64 tensor. */
  public java.nio.LongBuffer longs() {
    return Buffers.check(this, DataType.I64).bytes().asLongBuffer();
  }

  /** A copy of the elements, widened exactly from float32, float16 or bfloat16. */
  public float[] toFloats() {
    return Buffers.toFloats(this);
  }

  /** A float32 tensor with a copy of the values; without a shape one dimension. */
  public static Tensor of(float[] values, long... shape) {
    Tensor tensor = empty(Buffers.shape(values.length, shape), DataType.F32);
    tensor.floats().put(values);
    return tensor;
  }

  /** An int64 tensor with a copy of the values. */
  public static Tensor of(long[] values, long... shape) {
    Tensor tensor = empty(Buffers.shape(values.length, shape), DataType.I64);
    tensor.longs().put(values);
    return tensor;
  }

  /** A tensor on the memory of a direct buffer in the machine's byte order, from its first byte on: zero copy. */
  public static Tensor borrow(java.nio.ByteBuffer buffer, DataType dtype, long... shape) {
    return Buffers.borrow(buffer, dtype, shape);
  }
%}
%inline %{
namespace infinilm_java {
// A direct buffer on the tensor's memory; whoever calls keeps the tensor alive.
jobject tensorMemory(const infinilm::Tensor& tensor) {
  static char nothing = 0;
  infinilm::check<infinilm::TypeError>(tensor.device() == infinilm::Device(), "the tensor is on ",
                                       tensor.device().str(), ": use to() for a copy that Java can read");
  infinilm::check<infinilm::TypeError>(tensor.is_contiguous(), "the tensor is not contiguous: use contiguous()");
  void* memory = tensor.data() ? static_cast<void*>(tensor.data()) : &nothing;
  return environment()->NewDirectByteBuffer(memory, static_cast<jlong>(tensor.nbytes()));
}
infinilm::Tensor sameTensor(const infinilm::Tensor& tensor) { return tensor; }
infinilm::Tensor borrowMemory(jobject buffer, infinilm::DataType dtype, const infinilm::Shape& shape, bool readOnly) {
  JNIEnv* env = environment();
  void* memory = env->GetDirectBufferAddress(buffer);
  infinilm::check(memory != nullptr, "expected a direct buffer (ByteBuffer.allocateDirect)");
  const auto wanted = static_cast<std::size_t>(infinilm::numel_of(shape)) * infinilm::size_of(dtype);
  const auto found = static_cast<std::size_t>(env->GetDirectBufferCapacity(buffer));
  infinilm::check(wanted <= found, "a tensor of shape ", infinilm::str_of(shape), " takes ", wanted,
                  " bytes, the buffer has ", found);
  return infinilm::Tensor::borrow(memory, dtype, shape, {}, infinilm::Device(),
                                  std::make_shared<GlobalReference>(env, buffer), readOnly);
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
    return fromPretrained(directory, "cpu", null, null);
  }

  /** {@code dtype}: what to compute in, null for what the checkpoint's config names; {@code progress} may be null. */
  public static LlamaForCausalLM fromPretrained(
      java.nio.file.Path directory, String device, DataType dtype, ProgressListener progress) {
    LlamaForCausalLM model = read(directory.toString(), device, dtype, progress);
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

%pragma(java) modulecode = %{
  private Engine() {}

  /** Hears the engine's warnings from now on; what it throws leaves the call that caused the warning. */
  public static void setWarningHandler(java.util.function.Consumer<String> handler) {
    Callbacks.warnings = java.util.Objects.requireNonNull(handler, "handler");
  }
%}
