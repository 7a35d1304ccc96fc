"""A user's program: checked by `mypy --strict` (tox -e stubs), then run."""

import infinilm
import numpy as np
import numpy.typing as npt

seen: list[tuple[str, tuple[int, ...], int]] = []


def watch(name: str, tensor: infinilm.Tensor, layer_idx: int) -> None:
    values: npt.NDArray[np.float32] = tensor.numpy()
    values *= np.float32(1.0)
    seen.append((name, tensor.shape, layer_idx))


def configure() -> infinilm.LlamaConfig:
    config = infinilm.LlamaConfig(vocab_size=32, hidden_size=16, eos_token_id=2)
    config.eos_token_id = [2, 3]
    config.dtype = "bfloat16"
    config.num_hidden_layers = 2
    ids: list[int] = config.eos_token_id
    dtype: infinilm.DataType = config.dtype
    assert ids == [2, 3]
    assert dtype is infinilm.DataType.BF16
    return config


def look_inside(model: infinilm.LlamaForCausalLM) -> None:
    registry = infinilm.HookRegistry()
    handle = registry.register_hook("layer#_output", watch)
    model.set_hook_registry(registry)
    model.forward([1, 2, 3])
    calls: int = handle.calls
    assert calls == len(seen) == model.config.num_hidden_layers
    handle.remove()
    model.set_hook_registry(None)


def main() -> None:
    configure()
    infinilm.set_num_threads(1)
    model, tokenizer = infinilm.load(infinilm.sample_model())
    look_inside(model)
    ids = tokenizer.encode("ROMEO:")
    out = model.generate(ids, max_new_tokens=4)
    assert len(out) == len(ids) + 4
    version: str = infinilm.__version__
    print(version)


if __name__ == "__main__":
    main()
