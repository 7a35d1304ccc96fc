package infinilm;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.function.Function;

/** Java's half of the typemaps: between collections and the arrays that JNI passes. */
final class Values {
  private Values() {}

  static byte[] bytes(String text) {
    return Objects.requireNonNull(text, "a text must not be null").getBytes(StandardCharsets.UTF_8);
  }

  static String text(byte[] bytes) {
    return new String(bytes, StandardCharsets.UTF_8);
  }

  static Object[] bytes(List<String> texts) {
    byte[][] all = new byte[texts.size()][];
    Arrays.setAll(all, i -> bytes(texts.get(i)));
    return all;
  }

  static List<String> texts(Object[] all) {
    List<String> texts = new ArrayList<>(all.length);
    for (Object bytes : all) {
      texts.add(text((byte[]) bytes));
    }
    return texts;
  }

  static long[] optional(Long value) {
    return value == null ? new long[0] : new long[] {value};
  }

  static Long optional(long[] value) {
    return value.length == 0 ? null : value[0];
  }

  static DataType dtype(int ordinal) {
    return ordinal < 0 ? null : DataType.values()[ordinal];
  }

  static int ordinal(DataType dtype) {
    return Objects.requireNonNull(dtype, "dtype must not be null").ordinal();
  }

  static long[] join(long first, long... more) {
    long[] all = new long[more.length + 1];
    all[0] = first;
    System.arraycopy(more, 0, all, 1, more.length);
    return all;
  }

  static long[][] arrays(Object[] all) {
    return Arrays.copyOf(all, all.length, long[][].class);
  }

  static <T> List<T> objects(long[] cells, Function<Cell, T> make) {
    List<T> objects = new ArrayList<>(cells.length);
    for (long cell : cells) {
      objects.add(make.apply(new Cell(cell)));
    }
    return objects;
  }

  private static <T> Object[] pair(Map<String, T> map, Function<T, Object> convert, Object[] values) {
    Object[] keys = bytes(new ArrayList<>(map.keySet()));
    int i = 0;
    for (T value : map.values()) {
      values[i++] = convert.apply(value);
    }
    return new Object[] {keys, values};
  }

  static Object[] textPair(Map<String, String> map) {
    return pair(map, Values::bytes, new byte[map.size()][]);
  }

  static Object[] tensorPair(Map<String, Tensor> map) {
    return pair(map, tensor -> tensor, new Tensor[map.size()]);
  }

  private static <T> Map<String, T> map(Object[] pair, List<T> values) {
    List<String> keys = texts((Object[]) pair[0]);
    Map<String, T> map = new LinkedHashMap<>();
    for (int i = 0; i < keys.size(); i++) {
      map.put(keys.get(i), values.get(i));
    }
    return map;
  }

  static Map<String, String> textMap(Object[] pair) {
    return map(pair, texts((Object[]) pair[1]));
  }

  static Map<String, Long> longMap(Object[] pair) {
    return map(pair, Arrays.stream((long[]) pair[1]).boxed().toList());
  }

  static Map<String, Tensor> tensorMap(Object[] pair) {
    return map(pair, objects((long[]) pair[1], Tensor::new));
  }
}
