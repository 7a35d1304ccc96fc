package infinilm;

/** Types of elements, in the order of the engine's own. */
public enum DataType {
  F32("float32"),
  F16("float16"),
  BF16("bfloat16"),
  F64("float64"),
  I8("int8"),
  U8("uint8"),
  I16("int16"),
  U16("uint16"),
  I32("int32"),
  U32("uint32"),
  I64("int64"),
  U64("uint64"),
  BOOL("bool"),
  C64("complex64"),
  F8_E4M3("float8_e4m3fn"),
  F8_E5M2("float8_e5m2"),
  F8_E8M0("float8_e8m0fnu"),
  F8_E4M3FNUZ("float8_e4m3fnuz"),
  F8_E5M2FNUZ("float8_e5m2fnuz"),
  F6_E2M3("float6_e2m3fn"),
  F6_E3M2("float6_e3m2fn"),
  F4("float4_e2m1fn");

  private final String text;

  DataType(String text) {
    this.text = text;
  }

  /** NumPy's or ml_dtypes' name. */
  @Override
  public String toString() {
    return text;
  }

  /** The type of such a name. */
  public static DataType of(String name) {
    for (DataType type : values()) {
      if (type.text.equals(name)) {
        return type;
      }
    }
    throw new IllegalArgumentException("no data type is called " + name);
  }
}
