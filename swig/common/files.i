// Files of tensors.
%include "infinilm/checkpoint.hpp"
