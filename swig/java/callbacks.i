// Functional objects, and what the language supplies to long calls without the caller.
INFINILM_JAVA_TYPES(jobject, Object, Slot, infinilm::HookCallback)
INFINILM_JAVA_TYPES(jobject, Object, ProgressListener, infinilm::ProgressCallback)
INFINILM_JAVA_TYPES(jobjectArray, Object[], Slot[], std::vector<infinilm::LogitsProcessor>)

%define INFINILM_JAVA_CALLBACK(Type...)
INFINILM_JAVA_IN($javainput, Type)
%typemap(in) Type (Type value) {  // SWIG wraps what it takes for a class: it cannot be filled in place
  if (!infinilm_java::to_value(jenv, $input, "$1_name", value)) return $null;
  $1 = value;
}
%enddef
INFINILM_JAVA_CALLBACK(infinilm::HookCallback)
INFINILM_JAVA_CALLBACK(infinilm::ProgressCallback)
INFINILM_JAVA_CALLBACK(std::vector<infinilm::LogitsProcessor>)

%typemap(in, numinputs=0) infinilm::Frontend& {
  $1 = &infinilm_java::frontend();
}
