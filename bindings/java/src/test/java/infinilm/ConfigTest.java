package infinilm;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotSame;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.FileNotFoundException;
import java.io.UncheckedIOException;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class ConfigTest {
  @Test
  void defaultsAreThoseOfTheContract() {
    LlamaConfig config = new LlamaConfig();
    assertEquals(4096, config.getHiddenSize());
    assertEquals(10000.0, config.getRopeTheta());
    assertArrayEquals(new long[] {1}, config.getBosTokenId());
    assertArrayEquals(new long[] {2}, config.getEosTokenId());
    assertEquals(DataType.F32, config.getDtype());
    assertEquals("llama", config.getModelType());
    assertNull(config.getSlidingWindow());
    assertTrue(config.getAttentionBias());
    assertTrue(config.validate());
  }

  @Test
  void tokenIdsAreOneOrSeveral() {
    LlamaConfig config = new LlamaConfig();
    config.setEosTokenId(7);
    assertArrayEquals(new long[] {7}, config.getEosTokenId());
    config.setEosTokenId(1, 2, Long.MAX_VALUE);
    assertArrayEquals(new long[] {1, 2, Long.MAX_VALUE}, config.getEosTokenId());
    config.setEosTokenId(new long[0]);
    assertArrayEquals(new long[0], config.getEosTokenId());
    assertThrows(NullPointerException.class, () -> config.setEosTokenId((long[]) null));
    assertArrayEquals(new long[0], config.getEosTokenId());
  }

  @Test
  void headDimFollows() {
    LlamaConfig config = new LlamaConfig();
    config.setHiddenSize(64);
    config.setNumAttentionHeads(4);
    assertEquals(16, config.getHeadDim());
    assertFalse(config.headDimIsSet());
  }

  @Test
  void wrongValuesChangeNothing() {
    LlamaConfig config = new LlamaConfig();
    var negative = assertThrows(IllegalArgumentException.class, () -> config.setHiddenSize(-1));
    assertTrue(negative.getMessage().contains("-1"), negative.getMessage());
    assertEquals(4096, config.getHiddenSize());
    assertThrows(NullPointerException.class, () -> config.setHiddenAct(null));
    assertThrows(NullPointerException.class, () -> config.setDtype(null));
    config.setHiddenSize(10);
    config.setNumAttentionHeads(3);
    assertFalse(config.validate());
    var invalid = assertThrows(IllegalArgumentException.class, config::check);
    assertTrue(invalid.getMessage().contains("10"), invalid.getMessage());
  }

  @Test
  void optionalFieldsTakeNull() {
    LlamaConfig config = new LlamaConfig();
    config.setSlidingWindow(8L);
    assertEquals(8L, config.getSlidingWindow());
    config.setSlidingWindow(null);
    assertNull(config.getSlidingWindow());
    assertThrows(IllegalArgumentException.class, () -> config.setSlidingWindow(-8L));
  }

  @Test
  void ropeScalingIsAMap() {
    LlamaConfig config = new LlamaConfig();
    assertNull(config.getRopeScaling());
    config.setRopeScaling(Map.of("rope_type", "linear", "factor", 2.5));
    assertEquals(2.5, config.getRopeScaling().get("factor"));
    assertThrows(IllegalArgumentException.class, () -> config.setRopeScaling(Map.of("rope_type", "foo")));
    assertThrows(IllegalArgumentException.class, () -> config.setRopeScaling(Map.of("factor", new Object())));
    assertEquals("linear", config.getRopeScaling().get("rope_type"));
    config.setRopeScaling(Map.of("rope_type", "longrope", "factor", 2.0, "original_max_position_embeddings", 32,
        "short_factor", List.of(1.0, 1.5), "long_factor", List.of(2.0, 3.0)));
    assertEquals(List.of(2.0, 3.0), config.getRopeScaling().get("long_factor"));
    assertEquals(32L, config.getRopeScaling().get("original_max_position_embeddings"));
    config.setRopeScaling(null);
    assertNull(config.getRopeScaling());
  }

  @Test
  void roundTripsAndEquality() {
    LlamaConfig config = new LlamaConfig();
    config.setNameOrPath("ä 😀 \"x\"\n");
    config.setDtype(DataType.BF16);
    LlamaConfig same = LlamaConfig.fromJson(config.toJson());
    assertNotSame(config, same);
    assertEquals(config, same);
    assertEquals(config.hashCode(), same.hashCode());
    assertEquals("ä 😀 \"x\"\n", same.getNameOrPath());
    assertEquals(config, config.copy());
    same.setHiddenSize(64);
    assertNotEquals(config, same);
    assertNotEquals(config, new GenerationConfig());
  }

  @Test
  void readsHuggingFace() {
    LlamaConfig config = LlamaConfig.fromPretrained(Sample.DIRECTORY);
    assertEquals(2, config.getNumKeyValueHeads());
    assertEquals(DataType.BF16, config.getDtype());
    var missing = assertThrows(UncheckedIOException.class, () -> LlamaConfig.fromPretrained("/nowhere"));
    assertTrue(missing.getCause() instanceof FileNotFoundException);
    assertTrue(missing.getMessage().contains("/nowhere"));
    assertThrows(IllegalArgumentException.class, () -> LlamaConfig.fromJson("{"));
  }

  @Test
  void dataTypesAreTheEngines() {
    Map<String, String> names = Engine.dataTypes();
    assertEquals(names.size(), DataType.values().length);
    for (DataType type : DataType.values()) {
      assertEquals(names.get(type.name()), type.toString());
      assertEquals(type, DataType.of(type.toString()));
      LlamaConfig config = new LlamaConfig();
      config.setDtype(type); // in the engine's order
      assertTrue(config.toJson().contains("\"" + type + "\""));
    }
  }

  @Test
  void generationConfig() {
    GenerationConfig config = new GenerationConfig();
    config.setStopTokenIds(3);
    config.setSeed(7L);
    config.setTopP(2.0);
    assertArrayEquals(new long[] {3}, config.getStopTokenIds());
    assertThrows(IllegalArgumentException.class, config::check);
  }
}
