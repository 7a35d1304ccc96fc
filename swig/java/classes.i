// What Java's classes look like: names in its style, close() and a cleaner in place of finalisers (infinilm.NativeObject),
// and the methods that Java adds.
%ignore infinilm::DataType;  // infinilm.DataType
%rename("%(lowercamelcase)s", %$isfunction) "";
%rename("%(lowercamelcase)s", %$isvariable) "";
%ignore infinilm::Tensor::empty(Shape);  // the one that swig/common adds
%rename(toString) infinilm::Tensor::str;
%rename(toString) infinilm::Device::str;
%rename(toString) infinilm::Quantization::str;

%pragma(java) jniclassclassmodifiers = "final class"
%pragma(java) jniclasscode = %{
  static {
    NativeLibrary.load();
  }
%}

%typemap(javabase) SWIGTYPE "NativeObject"
%typemap(javainterfaces) SWIGTYPE ""
%typemap(javabody) SWIGTYPE %{
  $javaclassname(Cell cell) {
    super(cell, 0);
  }

  static long getCPtr($javaclassname object) {
    return object == null ? 0 : object.swigCPtr;
  }
%}
%typemap(javaconstruct) SWIGTYPE {
    this(new Cell($imcall));
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

%pragma(java) modulecode = %{
  private Engine() {}

  /** Hears the engine's warnings from now on; what it throws leaves the call that caused the warning. */
  public static void setWarningHandler(java.util.function.Consumer<String> handler) {
    Callbacks.warnings = java.util.Objects.requireNonNull(handler, "handler");
  }
%}
