"""What Python adds to the engine's configs: keyword constructors, dicts, copies, pickles, help with mistyped names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self

_SWIG = ("this", "thisown")


def _suggestion(name: str, names: tuple[str, ...]) -> str:
    import difflib  # here, as json below: what `import infinilm` need not wait for

    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _plain(value: object) -> object:
    """What JSON does not know of itself: NumPy's integers and floats, tuples in arrays."""
    for convert in ("tolist", "__index__", "__float__"):
        if hasattr(value, convert):
            return getattr(value, convert)()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no place in a config")


def _to_json(mapping: object, expected: str) -> str:
    import json

    if not isinstance(mapping, Mapping):
        raise TypeError(f"{expected} must be a mapping, not {type(mapping).__name__}")
    return json.dumps(dict(mapping), default=_plain)


class _Signature:
    """The signature of a config's class: every field by keyword, with its default."""

    def __get__(self, instance: object, owner: type[ConfigMethods]) -> Any:
        import inspect

        made = owner()
        return inspect.Signature(
            [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(made, name))
                for name in owner._fields
            ]
        )


class ConfigMethods:
    """Fields by name, refused with the nearest one where there is none."""

    _fields: ClassVar[tuple[str, ...]] = ()
    __signature__ = _Signature()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._fields = tuple(
            name
            for base in reversed(cls.__mro__)
            for name, value in vars(base).items()
            if isinstance(value, property) and value.fset and name not in _SWIG
        )

    def _set_fields(self, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            if name not in self._fields:
                raise TypeError(
                    f"{type(self).__name__} has no field {name!r}{_suggestion(name, self._fields)}"
                )
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._fields and name not in _SWIG:
            hint = _suggestion(name, self._fields)
            raise AttributeError(f"{type(self).__name__} has no field {name!r}{hint}")
        object.__setattr__(self, name, value)

    def __dir__(self) -> list[str]:
        return [
            name
            for name in object.__dir__(self)
            if name not in _SWIG and (name[0] != "_" or (name[:2] == "__" and "swig" not in name))
        ]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConfigMethods) or type(self)._equals is not type(other)._equals:
            return NotImplemented
        return self._equals(other)

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def _equals(self, other: Any) -> bool:
        raise NotImplementedError

    def _copy(self) -> Self:
        raise NotImplementedError

    def _represent(self) -> str:
        values = ((name, getattr(self, name)) for name in self._shown())
        return f"{type(self).__name__}({', '.join(f'{n}={_text(v)}' for n, v in values)})"

    def _shown(self) -> tuple[str, ...]:
        return self._fields

    def __copy__(self) -> Self:
        return self._copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._copy()

    def to_dict(self) -> dict[str, Any]:
        """Return every field, as ``to_json`` writes them."""
        import json

        fields: dict[str, Any] = json.loads(self.to_json())  # type: ignore[attr-defined]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read a mapping as ``from_json`` reads a file's text."""
        config: Self = cls.from_json(_to_json(fields, "fields"))  # type: ignore[attr-defined]
        return config


def _text(value: object) -> str:
    return repr(str(value)) if isinstance(value, str) else repr(value)


class LlamaConfigMethods(ConfigMethods):
    """The Python side of LlamaConfig."""

    @property
    def rope_scaling(self) -> dict[str, Any] | None:
        """HF's RoPE scaling as a dict, a copy: assign to change it. None for plain RoPE."""
        import json

        text: str = self._rope_scaling_json()  # type: ignore[attr-defined]
        scaling: dict[str, Any] | None = json.loads(text)
        return scaling

    @rope_scaling.setter
    def rope_scaling(self, value: Mapping[str, Any] | None) -> None:
        text = "null" if value is None else _to_json(value, "rope_scaling")
        self._set_rope_scaling_json(text)  # type: ignore[attr-defined]

    def _shown(self) -> tuple[str, ...]:
        names = self.field_names()  # type: ignore[attr-defined]
        follows = () if self._head_dim_is_set() else ("head_dim",)  # type: ignore[attr-defined]
        return tuple(name for name in names if name not in follows)

    def __reduce__(self) -> tuple[Any, ...]:
        head_dim = self.head_dim if self._head_dim_is_set() else None  # type: ignore[attr-defined]
        return _restored_llama, (type(self), self.to_json(), head_dim)  # type: ignore[attr-defined]


def _restored_llama(cls: type[LlamaConfigMethods], text: str, head_dim: int | None) -> object:
    config = cls.from_json(text)  # type: ignore[attr-defined]
    if head_dim is not None:  # set, even if to what it would be anyway
        config.head_dim = head_dim
    return config


def _restored(cls: type[GenerationConfigMethods], fields: dict[str, Any]) -> object:
    return cls(**fields)


class GenerationConfigMethods(ConfigMethods):
    """The Python side of GenerationConfig."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), {name: getattr(self, name) for name in self._fields})
