// The engine's operations one by one, under names that begin with `op_` unless a language has said otherwise.
#ifndef INFINILM_OPERATION
%define INFINILM_OPERATION(name)
%rename(op_##name) infinilm::operations::name;
%enddef
#endif
INFINILM_OPERATION(embed)
INFINILM_OPERATION(rms_norm)
INFINILM_OPERATION(act_mul)
INFINILM_OPERATION(add)
INFINILM_OPERATION(rope)
INFINILM_OPERATION(softmax)
INFINILM_OPERATION(attention)
INFINILM_OPERATION(attention_scores)

%include "infinilm/operations.hpp"
