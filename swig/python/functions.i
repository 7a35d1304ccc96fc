// Functions whose defaults SWIG cannot say in Python: the core's have an underscore.
%pythoncode %{
def hook_points(config: "LlamaConfig", prefix: "str" = "") -> "list[HookPoint]":
    r"""A model's hook points from its config alone, in the order of execution."""
    return _engine._hook_points(config, prefix)


def sampling_probabilities(
    logits: "Tensor",
    config: "GenerationConfig",
    tokens: "collections.abc.Sequence[int]" = (),
    prompt_length: "int" = 0,
) -> "Tensor":
    r"""
    The distribution that the next token is drawn from, float32 [V]: softmax of the float32 ``logits`` [V] after
    penalties, temperature, top_k, top_p and min_p; greedy settings give 1 to one token. ``tokens``: the sequence so
    far, of which the first ``prompt_length`` are its prompt.
    """
    return _engine._sampling_probabilities(logits, config, tokens, prompt_length)


def sample(
    logits: "Tensor",
    config: "GenerationConfig",
    tokens: "collections.abc.Sequence[int]" = (),
    prompt_length: "int" = 0,
    draws: "int" = 1,
    stream: "int" = 0,
) -> "list[int]":
    r"""
    ``draws`` tokens of that distribution, for the positions from ``tokens`` on: the first is what a run with this seed
    gives its sequence ``stream`` there. Without a seed each call draws others.
    """
    return _engine._sample(logits, config, tokens, prompt_length, draws, stream)


def save_safetensors(
    path: "typing.Union[str, os.PathLike[str]]",
    tensors: "collections.abc.Mapping[str, Tensor]",
    metadata: "typing.Optional[collections.abc.Mapping[str, str]]" = None,
) -> "None":
    r"""
    Writes a file that ``load_safetensors`` and the ``safetensors`` package read, atomically: a failure leaves what was
    there.
    """
    return _engine._save_safetensors(path, tensors, metadata or {})
%}
