"""What belongs to a saved model beside its weights: the tokenizer's files and the defaults of generation."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

# By HuggingFace's names; those that a directory has.
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)


def copy_companions(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy the files about text and generation from one model's directory to another; never half of one.

    Raises ``OSError``.
    """
    templates = Path(source).glob("additional_chat_templates/*.jinja")
    for name in (*_FILES, *(str(file.relative_to(source)) for file in templates)):
        file, copy = Path(source, name), Path(target, name)
        if file.is_file() and not (copy.exists() and file.samefile(copy)):
            _copy(file, copy)


def _copy(file: Path, copy: Path) -> None:
    copy.parent.mkdir(exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f"{copy.name}.", suffix=".tmp", dir=copy.parent)
    os.close(descriptor)
    try:
        shutil.copyfile(file, temporary)
        shutil.copymode(file, temporary)
        os.replace(temporary, copy)
    except BaseException:
        os.unlink(temporary)
        raise
