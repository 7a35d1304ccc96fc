package infinilm;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Locale;

/** The engine's library: the file that the property infinilm.library names, else the one inside of the jar. */
final class NativeLibrary {
  private NativeLibrary() {}

  static void load() {
    String file = System.getProperty("infinilm.library");
    if (file != null) {
      System.load(Path.of(file).toAbsolutePath().toString());
      return;
    }
    try {
      loadFromJar();
    } catch (IOException error) {
      throw new UncheckedIOException("cannot unpack the engine's library", error);
    }
  }

  private static void loadFromJar() throws IOException {
    String system = System.getProperty("os.name").toLowerCase(Locale.ROOT).replaceAll("\\W", "");
    String name = system + "-" + System.getProperty("os.arch") + "/" + System.mapLibraryName("infinilm_java");
    try (InputStream resource = NativeLibrary.class.getResourceAsStream("native/" + name)) {
      if (resource == null) {
        throw new UnsatisfiedLinkError("this jar has no native/" + name
            + ": build it for this machine, or name the library with -Dinfinilm.library=FILE");
      }
      Path folder = Files.createTempDirectory("infinilm");
      Path copy = folder.resolve(System.mapLibraryName("infinilm_java"));
      try {
        Files.copy(resource, copy, StandardCopyOption.REPLACE_EXISTING);
        System.load(copy.toString());
      } finally { // once it is mapped the file is not needed
        Files.deleteIfExists(copy);
        Files.delete(folder);
      }
    }
  }
}
