package infinilm;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.UncheckedIOException;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import org.junit.jupiter.api.Test;

class ModelTest {
  private static final long[] PROMPT = Sample.PROMPT;
  private static final LlamaForCausalLM model = Sample.model();

  private static float[] row(float[] logits, int i) {
    return Arrays.copyOfRange(logits, i * 1024, (i + 1) * 1024);
  }

  @Test
  void forward() {
    Tensor logits = model.forward(PROMPT);
    assertArrayEquals(new long[] {5, 1024}, logits.getShape());
    assertArrayEquals(new long[] {1, 5, 1024}, model.forward(Tensor.of(PROMPT, 1, 5)).getShape());
    assertArrayEquals(row(logits.toFloats(), 4), model.forward(Tensor.of(PROMPT), null, 1).toFloats());
  }

  @Test
  void aCacheContinues() {
    KvCache cache = model.newCache();
    model.forward(Tensor.of(new long[] {1, 20}), cache);
    assertEquals(2, cache.length());
    float[] continued = model.forward(Tensor.of(new long[] {300, 7, 45}), cache).toFloats();
    assertArrayEquals(row(model.forward(PROMPT).toFloats(), 4), row(continued, 2));
    assertArrayEquals(PROMPT, cache.tokens());
  }

  @Test
  void generateIsGreedyAndHeard() {
    List<Long> heard = new ArrayList<>();
    long[] tokens = model.generate(PROMPT, Sample.tokens(6), (id, sequence) -> heard.add(id));
    assertEquals(11, tokens.length);
    for (int i = 0; i < 6; i++) {
      assertEquals(tokens[5 + i], heard.get(i));
    }
    float[] last = row(model.forward(PROMPT).toFloats(), 4);
    for (float value : last) {
      assertTrue(value <= last[(int) tokens[5]]);
    }
    assertEquals(6, model.generate(PROMPT, Sample.tokens(6), (id, sequence) -> false).length);
  }

  @Test
  void severalPromptsOfDifferentLengths() {
    long[][] both = model.generate(new long[][] {PROMPT, {1, 9}}, Sample.tokens(3), null);
    assertArrayEquals(model.generate(PROMPT, Sample.tokens(3)), both[0]);
    assertArrayEquals(model.generate(new long[] {1, 9}, Sample.tokens(3)), both[1]);
  }

  @Test
  void logitsProcessors() {
    LogitsProcessor onlyFive = (tokens, logits) -> {
      assertEquals(1, tokens[0]);
      FloatBuffer values = logits.floats();
      for (int i = 0; i < values.limit(); i++) {
        values.put(i, i == 5 ? 0 : -1e9f);
      }
    };
    Generation run = Generation.of(model, new long[][] {{1, 2}, {1, 3}}, Sample.tokens(1), Arrays.asList(onlyFive, null), null);
    System.gc();
    assertArrayEquals(new long[] {1, 2, 5}, run.finish(null)[0]);
    assertEquals("length", run.finishReason(0));
    RuntimeException mine = new RuntimeException();
    Generation failing = Generation.of(model, new long[][] {{1, 2}}, Sample.tokens(1), List.of((t, l) -> {
      throw mine;
    }), null);
    assertSame(mine, assertThrows(RuntimeException.class, failing::step));
  }

  @Test
  void wrongInput() {
    assertThrows(IndexOutOfBoundsException.class, () -> model.forward(1024));
    assertThrows(IllegalArgumentException.class, () -> model.forward(new long[0]));
    assertThrows(IllegalArgumentException.class, () -> model.forward(Tensor.of(new float[] {1})));
    assertThrows(NullPointerException.class, () -> model.forward((Tensor) null));
    assertThrows(NullPointerException.class, () -> model.generate(new long[][] {null}, Sample.tokens(1), null));
    assertThrows(UncheckedIOException.class, () -> LlamaForCausalLM.fromPretrained(Path.of("/nowhere")));
    assertThrows(NoSuchElementException.class, () -> model.getParameter("model.nrm.weight"));
  }

  @Test
  void weights() {
    Map<String, Tensor> state = model.stateDict();
    LlamaForCausalLM other = new LlamaForCausalLM(model.config());
    assertThrows(IllegalStateException.class, () -> other.forward(PROMPT));
    other.loadStateDict(state);
    assertArrayEquals(model.forward(PROMPT).toFloats(), other.forward(PROMPT).toFloats());
    state.remove("model.norm.weight");
    var missing = assertThrows(IllegalArgumentException.class, () -> other.loadStateDict(state));
    assertTrue(missing.getMessage().contains("model.norm.weight"));
  }

  private static LlamaForCausalLM load(LoadOptions options) {
    return LlamaForCausalLM.fromPretrained(Sample.DIRECTORY, options);
  }

  @Test
  void loadOptions() {
    assertEquals("none", model.quantization().toString());
    LlamaForCausalLM rounded = load(new LoadOptions().dtype(DataType.F32).kvCacheDtype(DataType.I8)
        .quantization("int4").groupSize(64).activations("int8"));
    Quantization found = rounded.quantization();
    assertEquals("int4 in groups of 64, int8 activations", found.toString());
    assertEquals(4, found.getBits());
    assertEquals(64, found.getGroupSize());
    assertTrue(found.getInt8Activations());
    assertEquals(DataType.I8, rounded.kvCacheDtype());
    assertTrue(rounded.nbytes() < model.nbytes() / 2, () -> rounded.nbytes() + " of " + model.nbytes());
    assertEquals(DataType.F32, rounded.stateDict().get("model.layers.0.mlp.up_proj.weight").getDtype());
    float[] exact = load(new LoadOptions().dtype(DataType.F32)).forward(PROMPT).toFloats();
    float[] near = load(new LoadOptions().dtype(DataType.F32).quantization("int8")).forward(PROMPT).toFloats();
    double error = 0;
    double size = 0;
    for (int i = 0; i < exact.length; i++) {
      error = Math.max(error, Math.abs(exact[i] - near[i]));
      size = Math.max(size, Math.abs(exact[i]));
    }
    assertTrue(error > 0 && error < 0.1 * size, "error " + error + " of " + size);
    for (LoadOptions wrong : List.of(new LoadOptions().quantization("int3"), new LoadOptions().activations("int8"),
        new LoadOptions().quantization("int4").groupSize(33), new LoadOptions().dtype(DataType.I8),
        new LoadOptions().device("gpu"))) {
      assertThrows(IllegalArgumentException.class, () -> load(wrong));
    }
    assertThrows(IllegalArgumentException.class, () -> new LoadOptions().groupSize(0));
    assertThrows(NullPointerException.class, () -> load(new LoadOptions().quantization(null)));
  }

  @Test
  void progress() {
    long[] last = new long[2];
    LlamaForCausalLM.fromPretrained(Sample.DIRECTORY, new LoadOptions().progress((done, total) -> {
      last[0] = done;
      last[1] = total;
    }));
    assertTrue(last[1] > 0);
    assertEquals(last[1], last[0]);
    Exception mine = new Exception("enough");
    assertSame(mine, assertThrows(Exception.class, () -> LlamaForCausalLM.fromPretrained(Sample.DIRECTORY, new LoadOptions().progress((d, t) -> {
      throw mine;
    }))));
  }

  @Test
  void operations() {
    Tensor weights = Tensor.of(new float[] {1, 0, 0, 1, 2, 2}, 3, 2);
    PackedLinear linear = new PackedLinear(List.of(weights), DataType.F32);
    Tensor result = linear.apply(Tensor.of(new float[] {3, 4}, 1, 2), List.of()).get(0);
    assertArrayEquals(new float[] {3, 4, 14}, result.toFloats());
  }
}
