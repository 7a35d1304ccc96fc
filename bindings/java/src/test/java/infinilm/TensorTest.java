package infinilm;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.ReadOnlyBufferException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;

class TensorTest {
  private static ByteBuffer direct(int bytes) {
    return ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder());
  }

  @Test
  void whatItIs() {
    Tensor tensor = Tensor.of(new float[] {1, 2, 3, 4, 5, 6}, 2, 3);
    assertArrayEquals(new long[] {2, 3}, tensor.getShape());
    assertArrayEquals(new long[] {12, 4}, tensor.getStrides());
    assertEquals(DataType.F32, tensor.getDtype());
    assertEquals(24, tensor.getNbytes());
    assertEquals(new Device("cpu"), tensor.getDevice());
    assertThrows(IllegalArgumentException.class, () -> Tensor.of(new float[] {1, 2}, 3));
    assertThrows(IllegalArgumentException.class, () -> new Device("gpu"));
    assertThrows(IllegalStateException.class, () -> tensor.to(new Device("cuda")));
    assertEquals(6, tensor.to(new Device("cpu"), true).toFloats()[5]);
  }

  @Test
  void buffersShareTheMemory() {
    Tensor tensor = Tensor.of(new float[] {1, 2, 3});
    FloatBuffer buffer = tensor.floats();
    assertTrue(buffer.isDirect());
    buffer.put(1, 20);
    assertArrayEquals(new float[] {1, 20, 3}, tensor.toFloats());
    assertEquals(20, tensor.reshape(new long[] {3, 1}).floats().get(1));
    assertThrows(IndexOutOfBoundsException.class, () -> buffer.get(3));
    assertThrows(IllegalArgumentException.class, tensor::longs);
  }

  @Test
  void directBuffersAreTakenWithoutACopy() throws Exception {
    ByteBuffer memory = direct(16);
    Tensor tensor = Tensor.borrow(memory, DataType.F32, 2, 2);
    memory.putFloat(4, 5);
    assertEquals(5, tensor.floats().get(1));
    tensor.floats().put(0, 7);
    assertEquals(7, memory.getFloat(0));
    assertThrows(IllegalArgumentException.class, () -> Tensor.borrow(memory, DataType.F32, 5));
    assertThrows(ArithmeticException.class, () -> Tensor.borrow(memory, DataType.F32, 1L << 62)); // 2^64 bytes are not 0
    assertThrows(IllegalArgumentException.class, () -> Tensor.borrow(ByteBuffer.allocate(16).order(ByteOrder.nativeOrder()), DataType.F32, 4));
    assertThrows(IllegalArgumentException.class, () -> Tensor.borrow(memory.duplicate().order(ByteOrder.BIG_ENDIAN), DataType.F32, 4));
    Tensor readOnly = Tensor.borrow(memory.asReadOnlyBuffer().order(ByteOrder.nativeOrder()), DataType.F32, 4);
    assertThrows(ReadOnlyBufferException.class, () -> readOnly.floats().put(0, 1));
  }

  @Test
  void partsOfWhatIsTooLargeForABuffer() {
    long size = (1L << 31) + 16;
    Tensor tensor = Tensor.empty(new long[] {size}, DataType.U8); // untouched memory: the system gives none
    var tooLarge = assertThrows(IllegalArgumentException.class, tensor::bytes);
    assertTrue(tooLarge.getMessage().contains("bytes(offset, size)"), tooLarge.getMessage());
    ByteBuffer end = tensor.bytes(size - 8, 8);
    end.putLong(0, 42);
    assertEquals(42, tensor.bytes(size - 16, 16).getLong(8));
    assertThrows(IndexOutOfBoundsException.class, () -> tensor.bytes(size - 8, 9));
    assertThrows(IllegalArgumentException.class, () -> tensor.bytes(-1, 1));
    assertThrows(ArithmeticException.class, tensor.reshape(new long[] {2, size / 2})::toFloats);
    tensor.close();
  }

  @Test
  void memoryOutlivesWhoeverMadeIt() {
    Tensor[] tensors = new Tensor[50];
    FloatBuffer[] views = new FloatBuffer[50];
    for (int i = 0; i < 50; i++) {
      ByteBuffer memory = direct(4096);
      memory.putFloat(0, i);
      tensors[i] = Tensor.borrow(memory, DataType.F32, 1024);
      views[i] = Tensor.of(new float[] {i, i}).floats().slice(1, 1);
    }
    System.gc();
    System.gc();
    for (int i = 0; i < 50; i++) {
      assertEquals(i, tensors[i].floats().get(0));
      assertEquals(i, views[i].get(0));
    }
  }

  @Test
  void closing() {
    Tensor tensor = Tensor.of(new float[] {1, 2});
    FloatBuffer view = tensor.floats();
    tensor.close();
    tensor.close();
    assertEquals(2, view.get(1));
    var closed = assertThrows(IllegalStateException.class, tensor::getShape);
    assertTrue(closed.getMessage().contains("closed"), closed.getMessage());
    assertThrows(IllegalStateException.class, () -> Engine.op_softmax(tensor));
    assertThrows(NullPointerException.class, () -> Engine.op_softmax(null));
  }

  @Test
  void weightsOf16BitsAreReadExactly() throws Exception {
    Tensor weight = Sample.model().getParameter("model.norm.weight");
    assertEquals(DataType.BF16, weight.getDtype());
    float[] values = weight.toFloats();
    for (int i = 0; i < values.length; i++) {
      assertEquals(weight.bytes().asShortBuffer().get(i), (short) (Float.floatToRawIntBits(values[i]) >> 16));
      assertEquals(0, Float.floatToRawIntBits(values[i]) & 0xFFFF);
    }
    ByteBuffer halves = direct(8);
    halves.asShortBuffer().put(new short[] {0x3C00, (short) 0xC000, 1, 0x7C00});
    assertArrayEquals(new float[] {1, -2, 0x1p-24f, Float.POSITIVE_INFINITY}, Tensor.borrow(halves, DataType.F16, 4).toFloats());
  }

  @Test
  void filesOfTensors() throws Exception {
    Path file = Files.createTempFile("tensors", ".safetensors");
    Engine.saveSafetensors(file.toString(), Map.of("x", Tensor.of(new long[] {4, 5})), Map.of("ä", "ö"));
    assertEquals(Map.of("ä", "ö"), Engine.safetensorsMetadata(file.toString()));
    Tensor x = Engine.loadSafetensors(file.toString()).get("x");
    assertEquals(5, x.longs().get(1));
    assertThrows(ReadOnlyBufferException.class, () -> x.longs().put(0, 1));
    Files.write(file, "no tensors".getBytes(StandardCharsets.UTF_8));
    assertThrows(IllegalArgumentException.class, () -> Engine.loadSafetensors(file.toString()));
    Files.delete(file);
  }
}
