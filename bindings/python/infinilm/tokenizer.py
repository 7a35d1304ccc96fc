"""Text to token ids and back, from a HuggingFace directory's own tokenizer files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

if TYPE_CHECKING:
    import os

    import tokenizers

_SPECIAL_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "sep_token",
    "cls_token",
    "mask_token",
)


class Tokenizer:
    """A HuggingFace tokenizer: ``tokenizer.json`` and what belongs to it.

    It encodes and decodes as Transformers' fast tokenizers do. Whether a beginning-of-sequence
    token is put in front is what ``tokenizer.json`` says; where that file says nothing,
    ``add_bos_token`` and ``add_eos_token`` of ``tokenizer_config.json`` decide.

    >>> import infinilm
    >>> tokenizer = infinilm.Tokenizer.from_pretrained(infinilm.sample_model())
    >>> tokenizer.decode(tokenizer.encode("ROMEO:"), skip_special_tokens=True)
    'ROMEO:'
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: Mapping[str, Any] | None = None,
        *,
        chat_templates: Mapping[str, str] | None = None,
        name: str = "",
    ) -> None:
        """Wrap a ``tokenizers.Tokenizer``; ``config`` is the content of a ``tokenizer_config.json``."""
        self._backend = backend
        self._config = dict(config or {})
        self._name = name
        self.chat_templates = dict(chat_templates or {})
        """Chat templates by name; ``"default"`` is the one that is used unless another is asked for."""
        self.special_tokens = _special_tokens(self._config)
        """``{"bos_token": "<s>", ...}``, as a chat template sees them."""
        backend.no_padding()
        backend.no_truncation()
        if backend.post_processor is None:
            self._apply_bos_and_eos_flags()

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike[str]) -> Tokenizer:
        """Read the tokenizer files of a HuggingFace directory.

        Raises ``FileNotFoundError`` where there is no ``tokenizer.json``, ``ValueError`` for
        damaged files and ``ImportError`` without the ``tokenizers`` package.
        """
        folder = Path(directory)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(_missing_text(folder))
        backend = _read_backend(path)
        config = _read_json(folder / "tokenizer_config.json")
        config = {**_read_json(folder / "special_tokens_map.json"), **config}
        return cls(
            backend, config, chat_templates=_read_chat_templates(folder, config), name=str(folder)
        )

    # Encoding

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text``, with the model's own beginning (and end) tokens unless told otherwise."""
        _check_text(text)
        ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def encode_batch(
        self, texts: Iterable[str], add_special_tokens: bool = True
    ) -> list[list[int]]:
        """``encode`` for several texts at once, in parallel."""
        texts = list(texts)
        for text in texts:
            _check_text(text)
        batch = self._backend.encode_batch(texts, add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        """The text of token ids (a list, tuple or one-dimensional integer array)."""
        ids = np.asarray(ids)
        if ids.size and (ids.ndim != 1 or ids.dtype.kind not in "iu"):
            raise TypeError(
                f"ids must be one sequence of ints, not an array of shape {ids.shape}, {ids.dtype}"
            )
        if ids.size and (ids.min() < 0 or ids.max() >= 2**32):
            found = ids.min() if ids.min() < 0 else ids.max()
            raise IndexError(f"{found} is no token id: expected 0 <= id < {len(self)}")
        text: str = self._backend.decode(ids.tolist(), skip_special_tokens=skip_special_tokens)
        return text

    def token_to_id(self, token: str) -> int | None:
        """The id of one token as the vocabulary writes it, or None."""
        found: int | None = self._backend.token_to_id(token)
        return found

    def id_to_token(self, token_id: int) -> str | None:
        """A token as the vocabulary writes it (``"▁the"``, ``"<0x0A>"``), or None."""
        found: str | None = self._backend.id_to_token(token_id)
        return found

    # Facts

    @property
    def vocab_size(self) -> int:
        """Number of tokens, with the added ones."""
        size: int = self._backend.get_vocab_size(with_added_tokens=True)
        return size

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a sequence."""
        return self._special_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a sequence."""
        return self._special_id("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        """Id of the token that fills up a batch."""
        return self._special_id("pad_token")

    @property
    def unk_token_id(self) -> int | None:
        """Id of the token for what the vocabulary cannot say."""
        return self._special_id("unk_token")

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The ``tokenizers.Tokenizer`` underneath."""
        return self._backend

    def __repr__(self) -> str:
        special = ", ".join(f"{name}={token!r}" for name, token in self.special_tokens.items())
        return f"Tokenizer({self._name!r}, vocab_size={self.vocab_size}, {special})"

    # Conversations

    @property
    def chat_template(self) -> str | None:
        """The Jinja2 text that turns a conversation into a prompt, or None."""
        return self.chat_templates.get("default")

    @chat_template.setter
    def chat_template(self, template: str | None) -> None:
        self.chat_templates.pop("default", None)
        if template is not None:
            self.chat_templates["default"] = template

    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = ...,
        tokenize: Literal[True] = ...,
        tools: Sequence[Mapping[str, Any]] | None = ...,
        chat_template: str | None = ...,
        **kwargs: Any,
    ) -> list[int]: ...

    @overload
    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = ...,
        *,
        tokenize: Literal[False],
        tools: Sequence[Mapping[str, Any]] | None = ...,
        chat_template: str | None = ...,
        **kwargs: Any,
    ) -> str: ...

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        tokenize: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> list[int] | str:
        """The prompt of a conversation: its token ids, or its text with ``tokenize=False``.

        ``messages``: dicts with ``"role"`` and ``"content"``. ``chat_template``: a name among
        ``chat_templates``, or a template; by default the model's own. Further keywords reach the
        template. Raises ``ValueError`` if there is no template, or if it is malformed, refuses the
        conversation or does what a template may not do.
        """
        from .chat_template import render

        template = self._choose_template(chat_template, tools is not None)
        text = render(
            template,
            {
                **self.special_tokens,
                "tools": tools,
                "documents": None,
                **kwargs,
                "messages": messages,
                "add_generation_prompt": add_generation_prompt,
            },
        )
        return self.encode(text, add_special_tokens=False) if tokenize else text

    def _choose_template(self, asked: str | None, with_tools: bool) -> str:
        if asked is not None:
            return self.chat_templates.get(asked, asked)
        if with_tools and "tool_use" in self.chat_templates:
            return self.chat_templates["tool_use"]
        if "default" in self.chat_templates:
            return self.chat_templates["default"]
        if self.chat_templates:
            names = ", ".join(sorted(self.chat_templates))
            raise ValueError(f"say which chat_template to use: {names} (there is no default)")
        raise ValueError(
            f"{self._name or 'this tokenizer'} has no chat template: it is probably not a chat "
            "model. Give a plain prompt to generate(), or set tokenizer.chat_template to the "
            "Jinja2 text it was trained with"
        )

    def _special_id(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        return None if token is None else self.token_to_id(token)

    def _apply_bos_and_eos_flags(self) -> None:
        bos = self._config.get("add_bos_token") and self._flagged("bos_token")
        eos = self._config.get("add_eos_token") and self._flagged("eos_token")
        if not bos and not eos:
            return
        from tokenizers.processors import TemplateProcessing

        first = [bos[0]] if bos else []
        last = [eos[0]] if eos else []
        self._backend.post_processor = TemplateProcessing(
            single=[*first, "$A", *last],
            pair=[*first, "$A", *last, *first, "$B:1", *last],
            special_tokens=[pair for pair in (bos, eos) if pair],
        )

    def _flagged(self, name: str) -> tuple[str, int]:
        token, token_id = self.special_tokens.get(name), self._special_id(name)
        if token is None or token_id is None:
            raise ValueError(
                f"{self._name}: tokenizer_config.json says add_{name} but {name} is {token!r}, "
                "which tokenizer.json does not have"
            )
        return token, token_id


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Both ways of writing them: ``"<s>"`` and ``{"content": "<s>", ...}``."""
    found = {}
    for name in _SPECIAL_NAMES:
        value = config.get(name)
        if isinstance(value, Mapping):
            value = value.get("content")
        if isinstance(value, str):
            found[name] = value
    return found


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text has a lone surrogate, {text[error.start]!r}, at position {error.start}, which is "
            "no character: it was probably read with the wrong encoding"
        ) from error


def _missing_text(folder: Path) -> str:
    if not folder.is_dir():
        return f"no such directory: {folder}"
    for name in ("tokenizer.model", "vocab.json", "tekken.json"):
        if (folder / name).is_file():
            return (
                f"{folder} has {name} but no tokenizer.json, the format that is read here. "
                f"Transformers writes it: AutoTokenizer.from_pretrained({str(folder)!r})"
                f".save_pretrained({str(folder)!r})"
            )
    return f"{folder} has no tokenizer.json (token ids work without it)"


def _read_backend(path: Path) -> tokenizers.Tokenizer:
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "reading a tokenizer needs the `tokenizers` package: pip install tokenizers",
            name="tokenizers",
        ) from error
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{path} is not a tokenizer that can be read: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _read_chat_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name; files beside ``tokenizer_config.json`` go before what is written in it."""
    path = folder / "tokenizer_config.json"
    templates: dict[str, str] = {}
    written = config.get("chat_template")
    if isinstance(written, str):
        templates["default"] = written
    elif isinstance(written, list):
        for entry in written:
            if not (isinstance(entry, Mapping) and isinstance(entry.get("template"), str)):
                raise ValueError(
                    f"{path}: chat_template is a list, whose entries must be "
                    f'{{"name": ..., "template": ...}}, found {entry!r:.80}'
                )
            templates[str(entry.get("name", "default"))] = entry["template"]
    elif written is not None:
        raise ValueError(f"{path}: chat_template must be a string or a list, found {written!r:.80}")
    if (folder / "chat_template.jinja").is_file():
        templates["default"] = _read_text(folder / "chat_template.jinja")
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[file.stem] = _read_text(file)
    return templates


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
