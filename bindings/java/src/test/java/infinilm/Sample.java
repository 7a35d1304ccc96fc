package infinilm;

import java.nio.file.Path;
import java.util.Map;

/** What the tests share. */
final class Sample {
  static final Path DIRECTORY = Path.of(System.getenv("INFINILM_SAMPLE_MODEL"));
  static final long[] PROMPT = {1, 20, 300, 7, 45};

  private Sample() {}

  static LlamaForCausalLM model() {
    return LlamaForCausalLM.fromPretrained(DIRECTORY);
  }

  static GenerationConfig tokens(long count) {
    GenerationConfig config = new GenerationConfig();
    config.setMaxNewTokens(count);
    return config;
  }

  /** What is alive once the collector and the cleaner have done their work: waits for `wanted`, for a while. */
  static Map<String, Long> live(Map<String, Long> wanted) throws InterruptedException {
    for (int i = 0; i < 200 && !Engine.liveObjects().equals(wanted); i++) {
      System.gc();
      Thread.sleep(10);
    }
    return Engine.liveObjects();
  }
}
