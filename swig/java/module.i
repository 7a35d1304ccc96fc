// The entry file of the Java package infinilm; bindings/java has the classes beside SWIG's.
%module Engine

%include "../common/headers.i"
%include "macros.i"
%include "../common/exceptions.i"
%include "typemaps.i"
%include "callbacks.i"
%include "classes.i"
%include "tensors.i"
%include "models.i"
%include "../common/core.i"

%{
extern "C" JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM* machine, void*) { return infinilm_java::load(machine); }
%}
