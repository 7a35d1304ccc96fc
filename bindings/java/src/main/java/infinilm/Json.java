package infinilm;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;

/** As much of JSON as rope_scaling needs. */
final class Json {
  private final String text;
  private int at;

  private Json(String text) {
    this.text = text;
  }

  static String encode(Object value) {
    if (value == null || value instanceof Boolean || value instanceof Integer || value instanceof Long) {
      return String.valueOf(value);
    }
    if (value instanceof Number number) {
      double exact = number.doubleValue();
      if (Double.isNaN(exact) || Double.isInfinite(exact)) {
        throw new IllegalArgumentException("JSON has no number " + exact);
      }
      return String.valueOf(exact);
    }
    if (value instanceof String string) {
      return quote(string);
    }
    if (value instanceof List<?> list) {
      return list.stream().map(Json::encode).collect(Collectors.joining(",", "[", "]"));
    }
    if (value instanceof Map<?, ?> map) {
      return map.entrySet().stream()
          .map(e -> key(e.getKey()) + ":" + encode(e.getValue()))
          .collect(Collectors.joining(",", "{", "}"));
    }
    throw new IllegalArgumentException("JSON has no place for a value of " + value.getClass());
  }

  private static String key(Object key) {
    if (key instanceof String name) {
      return quote(name);
    }
    throw new IllegalArgumentException("a key of a JSON object must be a String, found " + key);
  }

  private static String quote(String string) {
    StringBuilder quoted = new StringBuilder("\"");
    for (char c : string.toCharArray()) {
      if (c == '"' || c == '\\') {
        quoted.append('\\').append(c);
      } else if (c < ' ') {
        quoted.append(String.format("\\u%04x", (int) c));
      } else {
        quoted.append(c);
      }
    }
    return quoted.append('"').toString();
  }

  /** null for "null". */
  @SuppressWarnings("unchecked")
  static Map<String, Object> decodeObject(String text) {
    return (Map<String, Object>) new Json(text).value();
  }

  private Object value() {
    return switch (peek()) {
      case '{' -> object();
      case '[' -> array();
      case '"' -> string();
      default -> word();
    };
  }

  private char peek() {
    while (Character.isWhitespace(text.charAt(at))) {
      at++;
    }
    return text.charAt(at);
  }

  private boolean take(char c) {
    boolean found = peek() == c;
    at += found ? 1 : 0;
    return found;
  }

  private void list(char open, char close, Runnable item) {
    take(open);
    if (take(close)) {
      return;
    }
    do {
      item.run();
    } while (take(','));
    take(close);
  }

  private Map<String, Object> object() {
    Map<String, Object> object = new LinkedHashMap<>();
    list('{', '}', () -> {
      peek();
      String key = string();
      take(':');
      object.put(key, value());
    });
    return object;
  }

  private List<Object> array() {
    List<Object> array = new ArrayList<>();
    list('[', ']', () -> array.add(value()));
    return array;
  }

  private String string() {
    StringBuilder string = new StringBuilder();
    for (at++; text.charAt(at) != '"'; at++) {
      char c = text.charAt(at);
      if (c != '\\') {
        string.append(c);
        continue;
      }
      char escape = text.charAt(++at);
      if (escape == 'u') {
        string.append((char) Integer.parseInt(text.substring(at + 1, at + 5), 16));
        at += 4;
      } else {
        int known = "bfnrt".indexOf(escape);
        string.append(known < 0 ? escape : "\b\f\n\r\t".charAt(known));
      }
    }
    at++;
    return string.toString();
  }

  private Object word() {
    int begin = at;
    while (at < text.length() && ",]} \n\r\t".indexOf(text.charAt(at)) < 0) {
      at++;
    }
    String word = text.substring(begin, at);
    return switch (word) {
      case "null" -> null;
      case "true" -> true;
      case "false" -> false;
      default -> word.matches("-?\\d+") ? (Object) Long.valueOf(word) : (Object) Double.valueOf(word);
    };
  }
}
