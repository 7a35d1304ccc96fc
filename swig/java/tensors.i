// Tensors as direct buffers and back (infinilm.Buffers); infinilm.NativeMemory knows what their garbage weighs.
%define INFINILM_JAVA_WEIGHS(Class)
%typemap(javabody) infinilm::Class %{
  Class(Cell cell) {
    super(cell, EngineJNI.Class ## _nbytes_get(cell.address, null));
  }

  static long getCPtr(Class object) {
    return object == null ? 0 : object.swigCPtr;
  }
%}
%enddef
INFINILM_JAVA_WEIGHS(Tensor)
INFINILM_JAVA_WEIGHS(Captured)
%typemap(javacode) infinilm::Tensor %{
  /** The memory itself, in the machine's byte order: zero copy. It stays alive as long as this buffer or a view of it. */
  public java.nio.ByteBuffer bytes() {
    return bytes(0, Buffers.size(this));
  }

  /** A part of {@link #bytes}, from byte {@code offset} on: a buffer's size is an int, a tensor's a long. */
  public java.nio.ByteBuffer bytes(long offset, int size) {
    java.nio.ByteBuffer memory = Buffers.of(this, offset, size);
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
// A direct buffer on `size` bytes of the tensor's memory from `offset` on; whoever calls keeps the tensor alive.
jobject tensorMemory(const infinilm::Tensor& tensor, std::size_t offset, std::size_t size) {
  static char nothing = 0;
  infinilm::check<infinilm::TypeError>(tensor.device() == infinilm::Device(), "the tensor is on ",
                                       tensor.device().str(), ": use to() for a copy that Java can read");
  infinilm::check<infinilm::TypeError>(tensor.is_contiguous(), "the tensor is not contiguous: use contiguous()");
  infinilm::check<infinilm::IndexError>(offset <= tensor.nbytes() && size <= tensor.nbytes() - offset, size,
                                        " bytes from byte ", offset, " on are not within the tensor's ", tensor.nbytes());
  void* memory = tensor.data() ? static_cast<void*>(tensor.data() + offset) : &nothing;
  return environment()->NewDirectByteBuffer(memory, static_cast<jlong>(size));
}
infinilm::Tensor sameTensor(const infinilm::Tensor& tensor) { return tensor; }
infinilm::Tensor borrowMemory(jobject buffer, infinilm::DataType dtype, const infinilm::Shape& shape, bool readOnly) {
  JNIEnv* env = environment();
  void* memory = env->GetDirectBufferAddress(buffer);
  infinilm::check(memory != nullptr, "expected a direct buffer (ByteBuffer.allocateDirect)");
  const auto size = static_cast<std::size_t>(env->GetDirectBufferCapacity(buffer));
  auto owned = std::make_shared<infinilm::Buffer>(memory, size, infinilm::Device(),
                                                  std::make_shared<GlobalReference>(env, buffer));
  return infinilm::Tensor(std::move(owned), dtype, shape, {}, 0, readOnly);  // checks that it fits
}
}
%}

