"""The model as Python sees it: the engine's, with arrays, text and HuggingFace's conventions around it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from . import engine
from . import generation as _generation
from .dtypes import DataType
from .progress import Progress, reporting
from .token_input import read_array

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import GenerateOptions
    from .tokenizer import Tokenizer

    AnyArray = Any  # whatever has __array__, __array_interface__ or __dlpack__


class LlamaForCausalLM:
    """A Llama-family language model: loads a HuggingFace directory, generates, and lets one look inside.

    >>> import infinilm
    >>> model = infinilm.LlamaForCausalLM.from_pretrained(infinilm.sample_model())
    >>> logits = model([1, 17, 23])  # float32 [tokens, vocabulary]
    >>> text = model.generate("ROMEO:", max_new_tokens=8)
    >>> text.startswith("ROMEO:")
    True
    """

    def __init__(
        self,
        config: engine.LlamaConfig,
        device: str = "cpu",
        *,
        kv_cache_dtype: Any = None,
        quantization: str | None = None,
        group_size: int | None = None,
        activations: str | None = None,
    ) -> None:
        """Make a model without weights, to be filled by ``load_state_dict``; using it before is an error.

        Keywords as in ``from_pretrained``.
        """
        rounding = _quantization(quantization, group_size, activations)
        self._set_up(engine.LlamaForCausalLM(config, device, kv_cache_dtype, rounding), None)

    def _set_up(self, model: engine.LlamaForCausalLM, directory: str | None) -> None:
        self._engine = model
        self._directory = directory
        self._tokenizer: Tokenizer | None = None
        self._generation_config: engine.GenerationConfig | None = None
        self._hook_registry: engine.HookRegistry | None = None

    @classmethod
    def from_pretrained(
        cls,
        directory: str | os.PathLike[str],
        device: str = "cpu",
        dtype: Any = None,
        *,
        kv_cache_dtype: Any = None,
        quantization: str | None = None,
        group_size: int | None = None,
        activations: str | None = None,
        progress: Progress | bool = None,
    ) -> LlamaForCausalLM:
        """Read a HuggingFace directory as it is: ``config.json`` and ``model.safetensors``, single or sharded.

        ``dtype``: what to compute in, ``"float32"`` or ``"bfloat16"``; by default what the
        checkpoint's config names. ``kv_cache_dtype``: what keys and values are kept in, ``"float32"``
        (exact), ``"bfloat16"`` (half the memory) or ``"int8"`` (a quarter); by default what is computed
        in. ``progress``: True for a bar on a terminal, or ``callback(done, total)`` in bytes.

        ``quantization``: ``"int8"`` or ``"int4"`` rounds the weights while they are loaded: a half or
        a quarter of bfloat16's memory, and as much faster decoding. ``group_size``: inputs that
        share a scale, a multiple of 32; by default 32 for int4, a whole row for int8. Embedding and
        head are int8 by rows. ``activations="int8"`` rounds also what the weights are multiplied with,
        for a faster prefill; without it they count exactly. Of a checkpoint that is quantised already
        (compressed-tensors, GPTQ, AWQ), ``quantization`` rounds only the rest, such as the head.

        Raises ``FileNotFoundError``, ``ValueError`` (a damaged or unsupported checkpoint, by file,
        tensor and value) or ``OSError``; a model is never half loaded.
        """
        path = os.fspath(directory)
        rounding = _quantization(quantization, group_size, activations)
        with reporting(progress, "loading weights") as callback:
            loaded = engine.LlamaForCausalLM.from_pretrained(
                path, device, dtype, callback, kv_cache_dtype, rounding
            )
        model = cls.__new__(cls)
        model._set_up(loaded, path)
        return model

    # Running

    def forward(
        self,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | AnyArray,
        cache: engine.KvCache | None = None,
        *,
        logits_to_keep: int = 0,
    ) -> engine.Tensor:
        """Logits, float32: ``[tokens, V]`` for one sequence, ``[batch, tokens, V]`` for a rectangular batch.

        ``cache``: continues the sequences that it holds, and takes up these tokens.
        ``logits_to_keep``: how many of the last tokens to give logits for; 0 for all.

        Raises ``ValueError`` for empty or ragged input and past the longest sequence, ``TypeError``
        for what are no ints, ``IndexError`` for an id outside of the vocabulary, and whatever a
        hook raises.
        """
        ids = engine.Tensor.from_numpy(read_array(input_ids))
        return self._engine.forward(ids, cache, logits_to_keep)

    __call__ = forward

    @overload
    def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> str: ...
    @overload
    def generate(self, prompt: list[str], **options: Unpack[GenerateOptions]) -> list[str]: ...
    @overload
    def generate(
        self,
        prompt: Sequence[int] | Sequence[Sequence[int]] | AnyArray,
        **options: Unpack[GenerateOptions],
    ) -> Any: ...
    def generate(self, prompt: Any, **options: Any) -> Any:
        """Continue prompts. Ids give ids and text gives text, always prompt and continuation.

        Ids come back as int64: ``[tokens]`` for one sequence, ``[batch, tokens]`` for a rectangular
        batch (filled up with ``pad_token_id``, else the first eos id), a list of arrays for
        sequences of different lengths.

        Without further keywords it does what the checkpoint's ``generation_config.json`` says, else
        it is greedy and stops after 20 tokens, as in Transformers.

        - ``max_new_tokens``, ``max_length`` (with the prompt): the length.
        - ``do_sample``, ``temperature``, ``top_k``, ``top_p``, ``min_p``, ``seed``: giving one of
          the middle four turns sampling on; ``temperature=0`` and ``do_sample=False`` are greedy.
        - ``repetition_penalty`` (over prompt and continuation), ``presence_penalty``,
          ``frequency_penalty``.
        - ``eos_token_id`` (one or several; ``[]`` for none), ``stop_token_ids``, ``stop`` (strings,
          searched in the continuation, kept in the result), ``pad_token_id``.
        - ``logits_processor``: ``callable(tokens, logits)``, or a list with one for each prompt.
          ``tokens``: ids so far; ``logits``: a float32 array ``[V]`` to be edited in place, or
          return another one.
        - ``cache``: of ``new_cache()``; the prompt is the whole conversation, of which it holds a
          beginning.
        - ``use_cache=False``: compute the whole sequence again for each token.
        - ``logprobs``, ``prompt_logprobs``, ``return_dict_in_generate``: return a
          ``GenerateOutput``.
        - ``generation_config``: in place of the checkpoint's.

        Raises ``TypeError`` for an unknown keyword and ``ValueError`` for values out of range.
        """
        return _generation.generate(self, prompt, options)

    @overload
    def stream(self, prompt: str, **options: Unpack[GenerateOptions]) -> Iterator[str]: ...
    @overload
    def stream(
        self, prompt: Sequence[int] | AnyArray, **options: Unpack[GenerateOptions]
    ) -> Iterator[int]: ...
    def stream(self, prompt: Any, **options: Any) -> Iterator[Any]:
        """Continue one prompt step by step: iterate over pieces of text, or ids for ids.

        Takes ``generate``'s keywords. Only the continuation comes. Text comes in whole characters:
        what a token leaves unfinished is held back until the next ones complete it. Leaving the
        loop early stops the generation.

        >>> import infinilm
        >>> model = infinilm.LlamaForCausalLM.from_pretrained(infinilm.sample_model())
        >>> written = "".join(model.stream("ROMEO:", max_new_tokens=8))
        >>> "ROMEO:" + written == model.generate("ROMEO:", max_new_tokens=8)
        True
        """
        return _generation.stream(self, prompt, options)

    def new_cache(self, batch_size: int = 1, dtype: Any = None) -> engine.KvCache:
        """Make an empty KV cache for ``forward`` and ``generate`` of this model.

        ``dtype``: ``"float32"``, ``"bfloat16"`` or ``"int8"``; by default the model's ``kv_cache_dtype``.
        """
        return self._engine.new_cache(batch_size, dtype)

    # What belongs to it

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model's directory, read on first use; assign one to use another."""
        if self._tokenizer is None:
            if self._directory is None:
                raise RuntimeError(
                    "this model was made from a config and has no tokenizer: give token ids, or "
                    "set model.tokenizer"
                )
            from .tokenizer import Tokenizer

            self._tokenizer = Tokenizer.from_pretrained(self._directory)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @property
    def generation_config(self) -> engine.GenerationConfig:
        """The defaults of ``generate``: the directory's ``generation_config.json``, else the config's ids."""
        if self._generation_config is None:
            config = self.config
            if self._directory is None:
                self._generation_config = engine.GenerationConfig(
                    eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
                )
            else:
                self._generation_config = engine.GenerationConfig.from_pretrained(
                    self._directory, config
                )
        return self._generation_config

    @generation_config.setter
    def generation_config(self, config: engine.GenerationConfig) -> None:
        self._generation_config = config

    @property
    def config(self) -> engine.LlamaConfig:
        """A copy of the config the model was made from."""
        return self._engine.config()

    @property
    def device(self) -> engine.Device:
        """Where the weights are."""
        return self._engine.device()

    @property
    def kv_cache_dtype(self) -> DataType:
        """What the caches that the model makes keep keys and values in."""
        return self._engine.kv_cache_dtype()

    @property
    def quantization(self) -> engine.Quantization:
        """How the weights are rounded: ``bits``, ``group_size``, ``int8_activations``; false if they are not.

        >>> import infinilm
        >>> folder = infinilm.sample_model()
        >>> print(infinilm.LlamaForCausalLM.from_pretrained(folder, quantization="int4").quantization)
        int4 in groups of 32
        """
        return self._engine.quantization()

    @property
    def nbytes(self) -> int:
        """Memory of the weights as they are held."""
        return self._engine.nbytes()

    # Weights

    def state_dict(self) -> dict[str, engine.Tensor]:
        """All parameters by their HuggingFace names: copies in HuggingFace's layouts, in the dtype of the weights.

        Of quantised weights, what they stand for, in float32.
        """
        return self._engine.state_dict()

    def load_state_dict(self, state: Mapping[str, engine.Tensor | AnyArray]) -> None:
        """Take all weights from Tensors, NumPy arrays or torch tensors of float32, float16 or bfloat16, copying them.

        Raises ``ValueError`` that lists missing and unexpected names and wrong shapes; the model
        stays as it was then.
        """
        self._engine.load_state_dict({name: _as_tensor(name, t) for name, t in state.items()})

    def get_parameter(self, name: str) -> engine.Tensor:
        """A copy of one parameter. Raises ``KeyError`` that names the nearest ones."""
        return self._engine.get_parameter(name)

    def parameter_names(self) -> list[str]:
        """The HuggingFace names of all parameters, in HuggingFace's order."""
        return self._engine.parameter_names()

    def num_parameters(self) -> int:
        """How many numbers the model has learned; tied embeddings count once."""
        shapes = (parameter.shape for parameter in engine.parameters(self.config))
        return sum(int(np.prod(shape)) for shape in shapes)

    # Hooks

    def set_hook_registry(self, registry: engine.HookRegistry | None, prefix: str = "") -> None:
        """Let the hooks of ``registry`` fire in this model; None detaches.

        With a prefix ``p`` the points are called ``p_layer0_...``, and hooks may be registered
        under that name (this model only) or the bare one (every model of the registry).
        """
        self._engine.set_hook_registry(registry, prefix)
        self._hook_registry = registry

    @property
    def hook_registry(self) -> engine.HookRegistry | None:
        """The registry that was set, the same object."""
        return self._hook_registry

    def hook_points(self) -> list[engine.HookPoint]:
        """All points that a hook can be registered on, in the order of execution, with shapes and aliases."""
        return self._engine.hook_points()

    def __repr__(self) -> str:
        config = self.config
        where = "" if self._directory is None else f"{self._directory!r}, "
        return (
            f"LlamaForCausalLM({where}{config.model_type}, {self.num_parameters():,} parameters, "
            f"{config.num_hidden_layers} layers, dtype={config.dtype}, {self._rounding()}"
            f"device={self.device})"
        )

    def _rounding(self) -> str:
        return f"quantization={str(self.quantization)!r}, " if self.quantization else ""


def _quantization(
    name: str | None, group_size: int | None, activations: str | None
) -> engine.Quantization:
    if group_size == 0:
        raise ValueError("group_size: expected a multiple of 32, or None for the usual, found 0")
    return engine.Quantization(name or "", group_size or 0, activations or "")


def _as_tensor(name: str, value: Any) -> engine.Tensor:
    if isinstance(value, engine.Tensor):
        return value
    if isinstance(value, np.ndarray):
        return engine.Tensor.from_numpy(np.ascontiguousarray(value))
    if hasattr(value, "detach"):  # torch gives away no tensor that needs gradients
        value = value.detach().contiguous()
    if hasattr(value, "__dlpack__"):
        return engine.Tensor.from_dlpack(value)
    raise TypeError(
        f"{name!r} must be a Tensor, a NumPy array or a torch tensor, not {type(value).__name__}"
    )
