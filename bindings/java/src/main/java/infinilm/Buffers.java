package infinilm;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.ShortBuffer;
import java.util.Arrays;

/** Tensors as direct buffers and back. */
final class Buffers {
  private Buffers() {}

  /** Every view of a direct buffer refers to the first one, whose end therefore is the end of them all. */
  static ByteBuffer of(Tensor tensor, long offset, int size) {
    Tensor share = Engine.sameTensor(tensor);
    ByteBuffer memory = ((ByteBuffer) Engine.tensorMemory(share, offset, size)).order(ByteOrder.nativeOrder());
    NativeObject.whenUnreachable(memory, share);
    return memory;
  }

  /** All of a tensor's bytes, which a buffer can only have if they are less than 2 GiB. */
  static int size(Tensor tensor) {
    long bytes = tensor.getNbytes();
    if (bytes > Integer.MAX_VALUE) {
      throw new IllegalArgumentException("the tensor has " + bytes
          + " bytes, more than a buffer can hold: take parts with bytes(offset, size)");
    }
    return (int) bytes;
  }

  static Tensor check(Tensor tensor, DataType dtype) {
    if (tensor.getDtype() != dtype) {
      throw new IllegalArgumentException("the tensor is " + tensor.getDtype() + ", not " + dtype);
    }
    return tensor;
  }

  static long[] shape(int length, long... shape) {
    if (shape.length == 0) {
      return new long[] {length};
    }
    long product = Arrays.stream(shape).reduce(1, Math::multiplyExact);
    if (product != length) {
      throw new IllegalArgumentException(
          "shape " + Arrays.toString(shape) + " has " + product + " elements, there are " + length);
    }
    return shape;
  }

  static Tensor borrow(ByteBuffer buffer, DataType dtype, long... shape) {
    if (buffer.order() != ByteOrder.nativeOrder()) {
      throw new IllegalArgumentException("expected the machine's byte order: buffer.order(ByteOrder.nativeOrder())");
    }
    return Engine.borrowMemory(buffer, dtype, shape, buffer.isReadOnly());
  }

  static float[] toFloats(Tensor tensor) {
    Tensor dense = tensor.contiguous();
    float[] values = new float[Math.toIntExact(dense.numel())];
    switch (dense.getDtype()) {
      case F32 -> dense.floats().get(values);
      case BF16 -> {
        ShortBuffer bits = dense.bytes().asShortBuffer();
        for (int i = 0; i < values.length; i++) {
          values[i] = Float.intBitsToFloat(bits.get(i) << 16);
        }
      }
      case F16 -> {
        ShortBuffer bits = dense.bytes().asShortBuffer();
        for (int i = 0; i < values.length; i++) {
          values[i] = half(bits.get(i));
        }
      }
      default -> throw new IllegalArgumentException(
          "expected float32, float16 or bfloat16, found " + dense.getDtype());
    }
    return values;
  }

  private static float half(short bits) {
    int exponent = (bits >> 10) & 31;
    int fraction = bits & 1023;
    float size = exponent == 0 ? Math.scalb((float) fraction, -24)
        : exponent < 31 ? Math.scalb(1024f + fraction, exponent - 25)
        : fraction == 0 ? Float.POSITIVE_INFINITY
        : Float.NaN;
    return bits < 0 ? -size : size;
  }
}
