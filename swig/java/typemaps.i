// Values in and out. For each type: what JNI passes (jni, jtype), what Java shows (jstype), and the ways between, in C++
// (in, out: support/values.hpp) and in Java (javain, javaout: infinilm.Values).

%define INFINILM_JAVA_TYPES(jni_type, java_type, shown, Type...)
%typemap(jni) Type, const Type& "jni_type"
%typemap(jtype) Type, const Type& "java_type"
%typemap(jstype) Type, const Type& "shown"
%enddef

%define INFINILM_JAVA_IN(to_native, Type...)
%typemap(in) Type {
  if (!infinilm_java::to_value(jenv, $input, "$1_name", $1)) return $null;
}
%typemap(in) const Type& (Type value = Type()) {
  if (!infinilm_java::to_value(jenv, $input, "$1_name", value)) return $null;
  $1 = &value;
}
%typemap(javain) Type, const Type& "to_native"
%enddef

%define INFINILM_JAVA_OUT(to_java, Type...)
%typemap(out) Type { $result = infinilm_java::from_value(jenv, static_cast<const Type&>($1)); }
%typemap(out) const Type& { $result = infinilm_java::from_value(jenv, *$1); }
%typemap(javaout) Type, const Type& { return to_java; }
%enddef

%define INFINILM_JAVA_VALUE(jni_type, java_type, shown, to_native, to_java, Type...)
INFINILM_JAVA_TYPES(jni_type, java_type, shown, Type)
INFINILM_JAVA_IN(to_native, Type)
INFINILM_JAVA_OUT(to_java, Type)
%enddef

// Numbers. Unsigned ones travel as long.
%define INFINILM_JAVA_UNSIGNED(Type...)
INFINILM_JAVA_TYPES(jlong, long, long, Type)
%typemap(in) Type {
  if (!infinilm_java::to_unsigned(jenv, $input, "$1_name", $1)) return $null;
}
%typemap(out) Type { $result = static_cast<jlong>($1); }
%typemap(javain) Type "$javainput"
%typemap(javaout) Type { return $jnicall; }
%enddef
INFINILM_JAVA_UNSIGNED(size_t)
INFINILM_JAVA_UNSIGNED(std::size_t)
INFINILM_JAVA_UNSIGNED(std::uint64_t)
INFINILM_JAVA_TYPES(jlong, long, long, std::int64_t)
%typemap(in) std::int64_t { $1 = $input; }
%typemap(out) std::int64_t { $result = $1; }
%typemap(javain) std::int64_t "$javainput"
%typemap(javaout) std::int64_t { return $jnicall; }

%define INFINILM_JAVA_OPTIONAL(Type...)
INFINILM_JAVA_VALUE(jlongArray, long[], Long, Values.optional($javainput), Values.optional($jnicall), Type)
%enddef
INFINILM_JAVA_OPTIONAL(std::optional<std::size_t>)
INFINILM_JAVA_OPTIONAL(std::optional<std::int64_t>)
INFINILM_JAVA_OPTIONAL(std::optional<std::uint64_t>)

// DataType by its ordinal; -1 for none.
INFINILM_JAVA_TYPES(jint, int, DataType, infinilm::DataType)
%typemap(in) infinilm::DataType { $1 = static_cast<infinilm::DataType>($input); }
%typemap(in) const infinilm::DataType& (infinilm::DataType value) {
  value = static_cast<infinilm::DataType>($input);
  $1 = &value;
}
%typemap(out) infinilm::DataType { $result = static_cast<jint>($1); }
%typemap(out) const infinilm::DataType& { $result = static_cast<jint>(*$1); }
%typemap(javain) infinilm::DataType, const infinilm::DataType& "Values.ordinal($javainput)"
%typemap(javaout) infinilm::DataType, const infinilm::DataType& { return DataType.values()[$jnicall]; }

INFINILM_JAVA_VALUE(jint, int, DataType, ($javainput == null ? -1 : $javainput.ordinal()), Values.dtype($jnicall), std::optional<infinilm::DataType>)

// Text: UTF-8 in bytes, since JNI's own strings are in a form of its own.
%define INFINILM_JAVA_TEXT(Type...)
INFINILM_JAVA_VALUE(jbyteArray, byte[], String, Values.bytes($javainput), Values.text($jnicall), Type)
%enddef
INFINILM_JAVA_TEXT(std::string)
INFINILM_JAVA_TYPES(jbyteArray, byte[], String, std::string_view)
%typemap(in) std::string_view (std::string value) {
  if (!infinilm_java::to_value(jenv, $input, "$1_name", value)) return $null;
  $1 = value;
}
%typemap(javain) std::string_view "Values.bytes($javainput)"
%typemap(out) std::string_view { $result = infinilm_java::from_value(jenv, std::string($1)); }
%typemap(javaout) std::string_view { return Values.text($jnicall); }
INFINILM_JAVA_VALUE(jobjectArray, Object[], java.util.List<String>, Values.bytes($javainput), Values.texts($jnicall), std::vector<std::string>)

// Numbers in arrays.
%define INFINILM_JAVA_ARRAY(jni_type, shown, Type...)
INFINILM_JAVA_VALUE(jni_type, shown, shown, $javainput, $jnicall, Type)
%enddef
INFINILM_JAVA_ARRAY(jlongArray, long[], infinilm::TokenIds)
INFINILM_JAVA_ARRAY(jlongArray, long[], infinilm::Shape)
INFINILM_JAVA_ARRAY(jlongArray, long[], std::vector<std::int64_t>)
INFINILM_JAVA_ARRAY(jlongArray, long[], std::vector<std::size_t>)
INFINILM_JAVA_ARRAY(jfloatArray, float[], std::vector<float>)
INFINILM_JAVA_TYPES(jobjectArray, Object[], long[][], std::vector<infinilm::TokenIds>)
INFINILM_JAVA_IN($javainput, std::vector<infinilm::TokenIds>)
INFINILM_JAVA_OUT(Values.arrays($jnicall), std::vector<infinilm::TokenIds>)

// Mappings, as their keys and their values.
%define INFINILM_JAVA_MAP(element, to_native, to_java, Type...)
%typemap(jni) Type, const Type& "jobjectArray"
%typemap(jtype) Type, const Type& "Object[]"
%typemap(jstype) Type, const Type& "java.util.Map<String, element>"
INFINILM_JAVA_IN(to_native, Type)
INFINILM_JAVA_OUT(to_java, Type)
%enddef
INFINILM_JAVA_MAP(String, Values.textPair($javainput), Values.textMap($jnicall), std::map<std::string, std::string>)
INFINILM_JAVA_MAP(Long, null, Values.longMap($jnicall), std::map<std::string, std::int64_t>)
INFINILM_JAVA_MAP(Tensor, Values.tensorPair($javainput), Values.tensorMap($jnicall), std::map<std::string, infinilm::Tensor>)
%clear const std::map<std::string, std::int64_t>&;

// Objects of the core, in cells (support/cells.hpp). null is none, where one may be missing.
%typemap(in) SWIGTYPE * (std::shared_ptr<$*1_ltype> pinned), SWIGTYPE & (std::shared_ptr<$*1_ltype> pinned) {
  pinned = infinilm_java::pin<$*1_ltype>(jenv, $input, "$1_name");
  if (!pinned) return $null;
  $1 = pinned.get();
}
%typemap(in) SWIGTYPE (std::shared_ptr<$1_ltype> pinned) {
  pinned = infinilm_java::pin<$1_ltype>(jenv, $input, "$1_name");
  if (!pinned) return $null;
  $1 = *pinned;
}
%typemap(out) SWIGTYPE { $result = infinilm_java::new_cell(static_cast<const $1_ltype&>($1)); }
%typemap(out) SWIGTYPE * { $result = infinilm_java::new_cell(std::shared_ptr<$*1_ltype>($1)); }
%typemap(javaout) SWIGTYPE { return new $&javaclassname(new Cell($jnicall)); }
%typemap(javaout) SWIGTYPE * { return new $javaclassname(new Cell($jnicall)); }

// What %shared_ptr stands for in Java: the cell shares the object. (SWIG includes a file once, so that this takes the place of
// its own macro.)
%include <std_shared_ptr.i>
#undef SWIG_SHARED_PTR_TYPEMAPS
%define SWIG_SHARED_PTR_TYPEMAPS(CONST, TYPE...)
%typemap(jni) std::shared_ptr<CONST TYPE>, const std::shared_ptr<CONST TYPE>& "jlong"
%typemap(jtype) std::shared_ptr<CONST TYPE>, const std::shared_ptr<CONST TYPE>& "long"
%typemap(jstype) std::shared_ptr<CONST TYPE>, const std::shared_ptr<CONST TYPE>& "$typemap(jstype, TYPE)"
%typemap(in) std::shared_ptr<CONST TYPE> {
  if (!infinilm_java::pin_optional(jenv, $input, "$1_name", $1)) return $null;
}
%typemap(in) const std::shared_ptr<CONST TYPE>& (std::shared_ptr<CONST TYPE> pinned) {
  if (!infinilm_java::pin_optional(jenv, $input, "$1_name", pinned)) return $null;
  $1 = &pinned;
}
%typemap(out) std::shared_ptr<CONST TYPE> { $result = infinilm_java::new_cell($1); }
%typemap(javain) std::shared_ptr<CONST TYPE>, const std::shared_ptr<CONST TYPE>&
    "$typemap(jstype, TYPE).getCPtr($javainput)"
%typemap(javaout) std::shared_ptr<CONST TYPE> {
    long cell = $jnicall;
    return cell == 0 ? null : new $typemap(jstype, TYPE)(new Cell(cell));
  }
%template() std::shared_ptr<CONST TYPE>;
%enddef

// Lists of them: a cell with a copy each.
%define INFINILM_JAVA_CELLS(Class)
%typemap(jni) std::vector<infinilm::Class>, const std::vector<infinilm::Class>&, std::vector<infinilm::Class>* "jlongArray"
%typemap(jtype) std::vector<infinilm::Class>, const std::vector<infinilm::Class>&, std::vector<infinilm::Class>* "long[]"
%typemap(jstype) std::vector<infinilm::Class>, const std::vector<infinilm::Class>&, std::vector<infinilm::Class>* "java.util.List<Class>"
%typemap(out) std::vector<infinilm::Class> { $result = infinilm_java::cells_of(jenv, static_cast<const std::vector<infinilm::Class>&>($1)); }
%typemap(out) const std::vector<infinilm::Class>&, std::vector<infinilm::Class>* { $result = infinilm_java::cells_of(jenv, *$1); }
%typemap(javaout) std::vector<infinilm::Class>, const std::vector<infinilm::Class>&, std::vector<infinilm::Class>* { return Values.objects($jnicall, Class::new); }
%enddef
INFINILM_JAVA_CELLS(Captured)
INFINILM_JAVA_CELLS(CudaDevice)
INFINILM_JAVA_CELLS(HookPoint)
INFINILM_JAVA_CELLS(HookPointPattern)
INFINILM_JAVA_CELLS(ParameterInfo)
INFINILM_JAVA_CELLS(StepSequence)

// Tensors go in by their objects, so that none dies on the way, and come out in cells (an array in an array).
INFINILM_JAVA_VALUE(jobjectArray, Object[], java.util.List<Tensor>, $javainput.toArray(), Values.objects((long[]) $jnicall[0], Tensor::new), std::vector<infinilm::Tensor>)
%typemap(out) std::vector<infinilm::Tensor> {
  $result = infinilm_java::boxed(jenv, infinilm_java::cells_of(jenv, static_cast<const std::vector<infinilm::Tensor>&>($1)));
}
