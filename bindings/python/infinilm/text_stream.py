"""Tokens to text, piece by piece, and the search for stop strings in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_CONTEXT = 6  # tokens that are decoded again as context of the next one
_LONGEST = 24  # tokens in the window before it is moved on
_GIVE_UP = 64  # tokens without a whole character: these bytes are no text


class TextStream:
    """The text of a growing sequence of tokens: what ``put`` returns, put together, is what they add to it.

    A character whose bytes are spread over several tokens is held back until it is whole. The
    tokens before (the prompt) decide about leading spaces, and are not part of the text.

    It decodes a short window of tokens again for each new one, since what a token says depends on
    its neighbours.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int] = (), *, skip_special_tokens: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._window = [int(token) for token in prompt]
        # Characters of the window's text that are given out; a prompt may end within a character.
        self._given = len(self._decode(self._window).rstrip(_UNKNOWN))
        self._move_window()

    def put(self, token: int) -> str:
        """The text that can be told now that ``token`` is known; often empty."""
        self._window.append(int(token))
        text = self._decode(self._window)
        whole = text.rstrip(_UNKNOWN)
        if len(whole) < len(text) and len(self._window) > _GIVE_UP:
            whole = text
        piece = whole[self._given :]
        self._given = max(self._given, len(whole))
        if len(whole) == len(text) and len(self._window) > _LONGEST:
            self._move_window()
        return piece

    def flush(self) -> str:
        """What was held back, now that nothing follows: replacement characters for bytes that are no text."""
        piece = self._decode(self._window)[self._given :]
        self._given += len(piece)
        return piece

    def _decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=self._skip)

    def _move_window(self) -> None:
        """Forgets old tokens where what follows decodes alike without them."""
        text = self._decode(self._window)
        for size in range(_CONTEXT, min(_LONGEST, len(self._window))):
            tail = self._decode(self._window[-size:])
            # Not blank: a decoder that strips a leading space must find its word in the tail.
            if tail.strip() and _UNKNOWN not in tail and text.endswith(tail):
                self._window = self._window[-size:]
                self._given = len(tail) - (len(text) - self._given)
                return


class StopStrings:
    """Looks for any of several strings in the continuation of one sequence, also across tokens.

    Special tokens count by their text, so that ``"<|eot_id|>"`` can be a stop string.
    """

    def __init__(self, tokenizer: Tokenizer, strings: Sequence[str], prompt: Sequence[int]) -> None:
        self._strings = tuple(strings)
        self._stream = TextStream(tokenizer, prompt, skip_special_tokens=False)
        self._longest = max(len(string) for string in strings)
        self._tail = ""

    def put(self, token: int) -> bool:
        """True if the text up to and with ``token`` now has one of the strings."""
        piece = self._stream.put(token)
        text = self._tail + piece
        self._tail = text[-(self._longest - 1) :] if self._longest > 1 else ""
        return any(string in text for string in self._strings)
