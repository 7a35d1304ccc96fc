// The core's public headers, for the wrapper's C++. Comes before anything that uses them.
%{
#include "infinilm/capture.hpp"
#include "infinilm/ceilings.hpp"
#include "infinilm/checkpoint.hpp"
#include "infinilm/config.hpp"
#include "infinilm/device.hpp"
#include "infinilm/dtype.hpp"
#include "infinilm/error.hpp"
#include "infinilm/frontend.hpp"
#include "infinilm/generate.hpp"
#include "infinilm/hooks.hpp"
#include "infinilm/model.hpp"
#include "infinilm/operations.hpp"
#include "infinilm/quantization.hpp"
#include "infinilm/runtime.hpp"
#include "infinilm/sampling.hpp"
#include "infinilm/tensor.hpp"
%}
