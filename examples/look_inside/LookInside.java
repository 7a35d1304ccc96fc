import infinilm.HookHandle;
import infinilm.HookRegistry;
import infinilm.LlamaForCausalLM;
import infinilm.GenerationConfig;
import infinilm.Tensor;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.LongStream;

/**
 * Generates, captures an MLP and silences it: the same in Python, Lua and Java.
 * Usage: java -cp infinilm.jar LookInside.java DIRECTORY
 */
class LookInside {
  static final long[] PROMPT = {1, 20, 300, 7, 45};

  static String text(LongStream numbers) {
    return numbers.mapToObj(Long::toString).collect(Collectors.joining(" "));
  }

  static String text(float number) {
    return String.format(Locale.ROOT, "%.5f", number);
  }

  static String fiveLogits(LlamaForCausalLM model) {
    Tensor logits = model.forward(PROMPT);
    FloatBuffer values = logits.floats();
    int last = (PROMPT.length - 1) * (int) logits.getShape()[1];
    return IntStream.range(0, 5).mapToObj(i -> text(values.get(last + i))).collect(Collectors.joining(" "));
  }

  public static void main(String[] arguments) {
    LlamaForCausalLM model = LlamaForCausalLM.fromPretrained(Path.of(arguments[0]));
    GenerationConfig config = model.generationConfig();
    config.setMaxNewTokens(8L);
    System.out.println("generated " + text(Arrays.stream(model.generate(PROMPT, config))));
    System.out.println("plain     " + fiveLogits(model));

    Tensor[] captured = new Tensor[1];
    HookRegistry registry = new HookRegistry();
    HookHandle handle = registry.registerHook("layer1_mlp", (name, tensor, layer) -> {
      captured[0] = tensor.clone();
      FloatBuffer values = tensor.floats();
      while (values.hasRemaining()) {
        values.put(0);
      }
    });
    model.setHookRegistry(registry);
    System.out.println("silenced  " + fiveLogits(model));
    System.out.println("captured  " + text(Arrays.stream(captured[0].getShape())) + " "
        + text(captured[0].floats().get(0)) + " " + handle.getCalls());
  }
}
