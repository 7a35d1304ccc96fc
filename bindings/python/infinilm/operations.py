"""The engine's operations one by one, on tensors and arrays: the same kernels that the model runs."""

from infinilm.engine import PackedLinear
from infinilm.engine import op_act_mul as act_mul
from infinilm.engine import op_add as add
from infinilm.engine import op_attention as attention
from infinilm.engine import op_attention_scores as attention_scores
from infinilm.engine import op_embed as embed
from infinilm.engine import op_rms_norm as rms_norm
from infinilm.engine import op_rope as rope
from infinilm.engine import op_softmax as softmax

__all__ = [
    "PackedLinear",
    "act_mul",
    "add",
    "attention",
    "attention_scores",
    "embed",
    "rms_norm",
    "rope",
    "softmax",
]
