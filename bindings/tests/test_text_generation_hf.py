"""``generate`` against Transformers, on the sample model: lengths, stops, penalties, padding."""

from __future__ import annotations

from typing import Any

import infinilm
import numpy as np
import pytest
from infinilm.loading import LoadedModel

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore:Using the model-agnostic default:UserWarning")
PROMPTS = ["ROMEO:", "First Citizen:\nBefore", "é 🦙 To be"]


@pytest.fixture(scope="module")
def mine() -> LoadedModel:
    return infinilm.load(infinilm.sample_model(), dtype="float32")


@pytest.fixture(scope="module")
def theirs() -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        infinilm.sample_model(), dtype=torch.float32
    )


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(infinilm.sample_model())


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    ("here", "there"),
    [
        ({}, {}),
        ({"max_new_tokens": 60}, {"max_new_tokens": 60}),
        ({"max_length": 40}, {"max_length": 40}),
        ({"stop": "the"}, {"stop_strings": ["the"]}),
        ({"stop": ["\n\n", "zz"]}, {"stop_strings": ["\n\n", "zz"]}),
        ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
        ({"use_cache": False}, {"use_cache": False}),
    ],
)
def test_greedy(
    mine: LoadedModel,
    theirs: Any,
    tokenizer: Any,
    prompt: str,
    here: dict[str, Any],
    there: dict[str, Any],
) -> None:
    inputs = tokenizer(prompt, return_tensors="pt")
    if "stop" in here:
        here, there = {**here, "max_new_tokens": 60}, {**there, "max_new_tokens": 60}
        there["tokenizer"] = tokenizer
    expected = theirs.generate(
        inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False, **there
    )[0].tolist()
    assert mine.generate(mine.tokenizer.encode(prompt), **here).tolist() == expected
    text = mine.generate(prompt, **here)
    assert text == tokenizer.decode(expected, skip_special_tokens=True)
    streamed = "".join(mine.stream(prompt, **here))
    assert prompt + streamed == text


def test_padded_batch(mine: LoadedModel, theirs: Any) -> None:
    ids = np.array([[1, 50, 60, 70], [1, 80, 90, 100], [1, 33, 44, 55]])
    eos = int(mine.generate(ids, max_new_tokens=10)[0][6])  # ends the first one early
    found = mine.generate(ids, max_new_tokens=30, eos_token_id=eos)
    expected = theirs.generate(
        torch.from_numpy(ids),
        attention_mask=torch.ones(ids.shape),
        max_new_tokens=30,
        eos_token_id=eos,
        do_sample=False,
    )
    np.testing.assert_array_equal(found, expected.numpy())
