// What the core throws becomes the language's error. Comes after the language's macros and before anything that is wrapped.
%exception {
  try {
    $action
  } catch (const std::exception&) {  // not (...): the forced unwinding of an ending thread must pass
    INFINILM_RAISE
  }
}
