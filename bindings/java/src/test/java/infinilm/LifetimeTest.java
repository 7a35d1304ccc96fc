package infinilm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.ref.WeakReference;
import java.util.Map;
import org.junit.jupiter.api.Test;

class LifetimeTest {
  private static final long[] PROMPT = {1, 20, 300};

  /** Runs `body` and checks that nothing of the engine is left once the collector has been there. */
  private static void leavesNothing(Runnable body) throws InterruptedException {
    Map<String, Long> before = settled();
    body.run();
    assertEquals(before, Sample.live(before));
  }

  /** Until what other tests left is gone. */
  private static Map<String, Long> settled() throws InterruptedException {
    Map<String, Long> before;
    do {
      before = Engine.liveObjects();
      System.gc();
      Thread.sleep(50);
    } while (!before.equals(Engine.liveObjects()));
    return before;
  }

  @Test
  void tenThousandHookCallsLeaveNothing() throws InterruptedException {
    leavesNothing(() -> {
      LlamaForCausalLM model = Sample.model();
      HookRegistry registry = new HookRegistry();
      model.setHookRegistry(registry);
      long[] calls = {0};
      registry.registerHook("layer#_*", (name, tensor, layer) -> {
        calls[0]++;
        tensor.floats().get(0);
      });
      while (calls[0] < 10_000) {
        model.forward(PROMPT);
      }
    });
  }

  @Test
  void tenThousandExceptionsLeaveNothing() throws InterruptedException {
    leavesNothing(() -> {
      LlamaForCausalLM model = Sample.model();
      HookRegistry registry = new HookRegistry();
      model.setHookRegistry(registry);
      registry.registerHook("embed_tokens", (name, tensor, layer) -> {
        throw new Exception();
      });
      for (int i = 0; i < 10_000; i++) {
        assertThrows(Exception.class, () -> model.forward(PROMPT));
      }
    });
  }

  @Test
  void cyclesAreCollected() throws InterruptedException {
    leavesNothing(() -> {
      LlamaForCausalLM model = Sample.model();
      HookRegistry registry = new HookRegistry();
      registry.registerHook("layer0_mlp", (name, tensor, layer) -> assertNotNull(registry.names() + "" + model));
      model.setHookRegistry(registry);
      model.forward(PROMPT);
    });
  }

  @Test
  void callbacksGoWithTheirRegistration() throws InterruptedException {
    HookRegistry registry = new HookRegistry();
    WeakReference<HookCallback> first = register(registry);
    System.gc();
    assertNotNull(first.get());
    WeakReference<HookCallback> second = register(registry); // replaces the first
    collect(first);
    assertNull(first.get());
    assertNotNull(second.get());
    registry.clear();
    collect(second);
    assertNull(second.get());
  }

  private static WeakReference<HookCallback> register(HookRegistry registry) {
    HookCallback callback = (name, tensor, layer) -> registry.clear();
    registry.registerHook("logits", callback);
    return new WeakReference<>(callback);
  }

  private static void collect(WeakReference<?> reference) throws InterruptedException {
    for (int i = 0; i < 200 && reference.get() != null; i++) {
      System.gc();
      Thread.sleep(10);
    }
  }

  @Test
  void aModelKeepsItsRegistry() {
    LlamaForCausalLM model = Sample.model();
    int[] calls = {0};
    model.setHookRegistry(new HookRegistry());
    model.getHookRegistry().registerHook("logits", (name, tensor, layer) -> calls[0]++);
    System.gc();
    model.generate(PROMPT, Sample.tokens(2));
    assertEquals(2, calls[0]);
  }

  @Test
  void closingFreesAtOnce() throws InterruptedException {
    Map<String, Long> before = settled();
    LlamaForCausalLM model = Sample.model();
    assertEquals(before.get("models") + 1, Engine.liveObjects().get("models"));
    model.close();
    assertTrue(Engine.liveObjects().get("models") <= before.get("models"));
    assertThrows(IllegalStateException.class, model::config);
  }
}
