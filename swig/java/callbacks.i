// Functional objects, and what the language supplies to long calls without the caller.
%define INFINILM_JAVA_CALLBACK(shown, Type...)
%typemap(jni) Type "jobject"
%typemap(jtype) Type "Object"
%typemap(jstype) Type "shown"
%typemap(javain) Type "$javainput"
%typemap(in) Type (Type value) {
  if (!infinilm_java::to_value(jenv, $input, "$1_name", value)) return $null;
  $1 = value;
}
%enddef
INFINILM_JAVA_CALLBACK(Slot, infinilm::HookCallback)
INFINILM_JAVA_CALLBACK(ProgressListener, infinilm::ProgressCallback)
INFINILM_JAVA_CALLBACK(Slot[], std::vector<infinilm::LogitsProcessor>)
%typemap(jni) std::vector<infinilm::LogitsProcessor> "jobjectArray"
%typemap(jtype) std::vector<infinilm::LogitsProcessor> "Object[]"

%typemap(in, numinputs=0) infinilm::Frontend& {
  $1 = &infinilm_java::frontend();
}
