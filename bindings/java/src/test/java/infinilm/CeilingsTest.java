package infinilm;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

class CeilingsTest {
  private static final long MIB = 1 << 20;

  /** The one class whose constructor takes a number alone: it is no address. */
  @Test
  void limitsAreMeasured() {
    Ceilings ceilings = new Ceilings(MIB);
    assertTrue(ceilings.readGbs() > 0);
    Peak peak = ceilings.peak(DataType.F32);
    assertTrue(peak.getGflops() > 0);
    assertTrue(!peak.getInstruction().isEmpty());
  }

  @Test
  void whatTheyRefuse() {
    var small = assertThrows(IllegalArgumentException.class, () -> new Ceilings(MIB - 1));
    assertEquals("expected at least 1048576 bytes to read, found 1048575", small.getMessage());
    assertThrows(IllegalArgumentException.class, () -> new Ceilings(-1));
    assertThrows(IllegalArgumentException.class, () -> new Ceilings(MIB).peak(DataType.F16));
  }
}
