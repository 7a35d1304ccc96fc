package infinilm;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class HooksTest {
  private static final long[] PROMPT = Sample.PROMPT;
  private static final LlamaForCausalLM model = Sample.model();
  private HookRegistry registry;

  @BeforeEach
  void attach() {
    registry = new HookRegistry();
    model.setHookRegistry(registry);
  }

  @AfterEach
  void detach() {
    model.setHookRegistry(null);
  }

  @Test
  void lambdasHearNameTensorAndLayer() {
    List<String> heard = new ArrayList<>();
    HookHandle handle = registry.registerHook("layer1_mlp", (name, tensor, layer) ->
        heard.add(name + " " + tensor + " " + layer));
    model.forward(PROMPT);
    assertEquals(List.of("layer1_mlp Tensor(shape=(5, 192), dtype=float32, device=cpu) 1"), heard);
    assertEquals(1, handle.getCalls());
    assertSame(registry, model.getHookRegistry());
  }

  @Test
  void capturesKeepValuesWithoutALambda() {
    Capture capture = registry.capture("layer#_mlp");
    model.forward(PROMPT);
    model.forward(PROMPT);
    List<Captured> values = capture.take();
    assertEquals(8, values.size());
    assertEquals("layer3_mlp", values.get(7).getName());
    assertEquals(3, values.get(7).getLayerIdx());
    assertArrayEquals(values.get(0).tensor().toFloats(), values.get(4).tensor().toFloats());
    assertEquals(1, values.get(4).step().getStep() - values.get(0).step().getStep());
    assertTrue(capture.values().isEmpty());
    capture.remove();
    model.forward(PROMPT);
    assertTrue(capture.values().isEmpty());
    assertFalse(capture.getActive());
    assertThrows(IllegalArgumentException.class, () -> registry.capture(""));
  }

  @Test
  void globsAliasesAndPrefixes() {
    List<String> names = new ArrayList<>();
    registry.registerHook("layer#_mlp", (name, tensor, layer) -> names.add(name));
    registry.registerHook("a_layer0_mlp_output", (name, tensor, layer) -> names.add(name));
    model.setHookRegistry(registry, "a");
    model.forward(PROMPT);
    assertEquals(List.of("a_layer0_mlp", "a_layer0_mlp_output", "a_layer1_mlp", "a_layer2_mlp", "a_layer3_mlp"), names);
  }

  @Test
  void writingEditsTheComputation() {
    float[] plain = model.forward(PROMPT).toFloats();
    HookHandle handle = registry.registerHook("layer0_mlp", (name, tensor, layer) -> {
      FloatBuffer values = tensor.floats();
      while (values.hasRemaining()) {
        values.put(0);
      }
    });
    List<float[]> residual = new ArrayList<>();
    registry.registerHook("layer0_before_post_attention_layernorm", (n, tensor, l) -> residual.add(tensor.toFloats()));
    registry.registerHook("layer0_output", (n, tensor, l) -> residual.add(tensor.toFloats()));
    assertFalse(java.util.Arrays.equals(plain, model.forward(PROMPT).toFloats()));
    assertArrayEquals(residual.get(0), residual.get(1)); // it passed the silenced MLP unchanged
    handle.remove();
    assertArrayEquals(plain, model.forward(PROMPT).toFloats());
    assertFalse(handle.getActive());
  }

  @Test
  void whatIsKeptStaysAsItWas() {
    List<Tensor> tensors = new ArrayList<>();
    List<FloatBuffer> buffers = new ArrayList<>();
    List<float[]> copies = new ArrayList<>();
    registry.registerHook("layer#_output", (name, tensor, layer) -> {
      tensors.add(tensor);
      copies.add(tensor.toFloats());
      buffers.add(tensor.floats());
    });
    registry.registerHook("layer#_input", (name, tensor, layer) -> tensor.floats().put(0, 1e6f));
    model.forward(PROMPT);
    for (int i = 0; i < 4; i++) {
      model.forward(9, 8, 7);
    }
    tensors.get(0).close(); // its buffer has a share of its own
    System.gc();
    for (int i = 0; i < copies.size(); i++) {
      if (i > 0) {
        assertArrayEquals(copies.get(i), tensors.get(i).toFloats());
      }
      float[] now = new float[copies.get(i).length];
      buffers.get(i).get(now);
      assertArrayEquals(copies.get(i), now);
    }
  }

  @Test
  void aThrowableArrivesAsItself() {
    for (Throwable mine : new Throwable[] {new IllegalStateException("a"), new IOException("b"), new Error("c")}) {
      registry.registerHook("layer2_mlp", (name, tensor, layer) -> sneaky(mine));
      assertSame(mine, assertThrows(Throwable.class, () -> model.forward(PROMPT)));
      assertSame(mine, assertThrows(Throwable.class, () -> model.generate(PROMPT, Sample.tokens(2))));
    }
    registry.clear();
    model.forward(PROMPT); // still usable
  }

  @SuppressWarnings("unchecked")
  private static <T extends Throwable> void sneaky(Throwable error) throws T {
    throw (T) error;
  }

  @Test
  void anErrorOfTheEngineInsideOfAHookArrivesToo() {
    registry.registerHook("layer0_mlp", (name, tensor, layer) -> tensor.reshape(new long[] {7}));
    assertThrows(IllegalArgumentException.class, () -> model.forward(PROMPT));
  }

  @Test
  void hooksMayRunModelsAndChangeTheRegistry() {
    LlamaForCausalLM other = Sample.model();
    List<float[]> inner = new ArrayList<>();
    registry.registerHook("layer0_mlp", (name, tensor, layer) -> {
      inner.add(other.forward(PROMPT).toFloats());
      registry.clear();
    });
    registry.registerHook("layer1_mlp", (name, tensor, layer) -> {
      throw new AssertionError("cleared before");
    });
    float[] outer = model.forward(PROMPT).toFloats();
    assertArrayEquals(outer, inner.get(0));
    assertEquals(0, registry.size());
  }

  @Test
  void aForwardInsideOfItself() {
    float[] plain = model.forward(PROMPT).toFloats();
    KvCache cache = model.newCache();
    List<float[]> inner = new ArrayList<>();
    AtomicInteger depth = new AtomicInteger();
    registry.registerHook("layer0_mlp", (name, tensor, layer) -> {
      if (depth.getAndIncrement() > 0) {
        return; // the inner one's own hook
      }
      var inUse = assertThrows(IllegalStateException.class, () -> model.forward(Tensor.of(PROMPT), cache));
      assertTrue(inUse.getMessage().contains("in use"), inUse.getMessage());
      inner.add(model.forward(PROMPT).toFloats());
    });
    assertArrayEquals(plain, model.forward(Tensor.of(PROMPT), cache).toFloats());
    assertArrayEquals(plain, inner.get(0));
    assertEquals(PROMPT.length, cache.length());
    registry.registerHook("layer0_mlp", (name, tensor, layer) -> model.forward(PROMPT));
    assertThrows(StackOverflowError.class, () -> model.forward(PROMPT));
    registry.clear();
    assertArrayEquals(plain, model.forward(PROMPT).toFloats()); // still usable
  }

  @Test
  void whatIsClosedInsideOfAHookIsStillUsedByTheCall() {
    LlamaForCausalLM mine = Sample.model();
    HookRegistry own = new HookRegistry();
    mine.setHookRegistry(own);
    float[] plain = mine.forward(PROMPT).toFloats();
    KvCache cache = mine.newCache();
    Tensor ids = Tensor.of(PROMPT);
    own.registerHook("layer1_mlp", (name, tensor, layer) -> {
      for (NativeObject object : List.of(tensor, ids, cache, mine)) {
        object.close();
      }
    });
    assertArrayEquals(plain, mine.forward(ids, cache).toFloats());
    assertThrows(IllegalStateException.class, () -> mine.forward(PROMPT));
    assertThrows(IllegalStateException.class, cache::length);
    cache.close();
  }

  @Test
  void manyThreads() throws Exception {
    AtomicInteger calls = new AtomicInteger();
    registry.registerHook("layer#_mlp", (name, tensor, layer) -> calls.incrementAndGet());
    float[] plain = model.forward(PROMPT).toFloats();
    var pool = Executors.newFixedThreadPool(4);
    List<Future<float[]>> results = new ArrayList<>();
    for (int i = 0; i < 40; i++) {
      int number = i;
      results.add(pool.submit(() -> {
        registry.registerHook("layer0_input", (name, tensor, layer) -> { }).remove();
        if (number % 10 == 0) {
          System.gc();
        }
        return model.forward(PROMPT).toFloats();
      }));
    }
    for (Future<float[]> result : results) {
      assertArrayEquals(plain, result.get());
    }
    pool.shutdown();
    assertEquals(4 * 41, calls.get());
  }

  @Test
  void anInterruptedThreadStops() throws Exception {
    // The core asks between layers, at most every 50 ms: the hook makes it late enough.
    registry.registerHook("layer#_mlp", (name, tensor, layer) -> {
      Thread.currentThread().interrupt();
      long begin = System.nanoTime();
      while (System.nanoTime() - begin < 60_000_000) {
        Thread.onSpinWait();
      }
    });
    assertThrows(CancellationException.class, () -> model.forward(PROMPT));
    assertTrue(Thread.interrupted());
  }

  @Test
  void registering() {
    assertThrows(NullPointerException.class, () -> registry.registerHook("logits", null));
    assertThrows(IllegalArgumentException.class, () -> registry.registerHook("", (n, t, l) -> { }));
    HookHandle first = registry.registerHook("logits", (n, t, l) -> { });
    HookHandle second = registry.registerHook("logits", (n, t, l) -> { });
    model.forward(PROMPT);
    assertEquals(List.of(0L, 1L, 1L), List.of(first.getCalls(), second.getCalls(), registry.size()));
    assertEquals(List.of("logits"), registry.names());
    registry.callHook("logits", Tensor.of(new float[] {1}), 3);
    assertEquals(2, second.getCalls());
  }

  @Test
  void aNameWithoutAPointWarns() {
    List<String> texts = new ArrayList<>();
    Engine.setWarningHandler(texts::add);
    registry.registerHook("layr0_mlp", (n, t, l) -> { });
    model.forward(PROMPT);
    assertEquals(1, texts.size());
    assertTrue(texts.get(0).contains("\"layer0_mlp\""), texts.get(0));
    RuntimeException mine = new RuntimeException();
    Engine.setWarningHandler(text -> {
      throw mine;
    });
    registry.registerHook("layr1_mlp", (n, t, l) -> { });
    assertSame(mine, assertThrows(RuntimeException.class, () -> model.forward(PROMPT)));
  }

  @Test
  void currentStepAndPoints() {
    List<StepSequence> sequences = new ArrayList<>();
    registry.registerHook("layer0_mlp", (n, t, l) -> sequences.addAll(Engine.currentStep().getSequences()));
    model.forward(PROMPT);
    assertEquals(5, sequences.get(0).getRows());
    assertThrows(IllegalStateException.class, Engine::currentStep);
    assertEquals("embed_tokens", model.hookPoints().get(0).getName());
    assertEquals("p_embed_tokens", Engine.hookPoints(model.config(), "p").get(0).getName());
    assertTrue(Engine.hookPointTable().get(1).getAliases() != null);
  }
}
