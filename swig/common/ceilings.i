// The machine's limits, measured.
%immutable infinilm::Peak::instruction;
%immutable infinilm::Peak::gflops;
%nodefaultctor infinilm::Peak;
%include "infinilm/ceilings.hpp"
