"""Chat templates: Jinja2 programs that nobody has checked, run in a sandbox with limits."""

from __future__ import annotations

import contextvars
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

MAX_STEPS = 1_000_000
"""Rounds of all loops and calls of one rendering together."""
MAX_SIZE = 16_000_000
"""Characters of the result, and of any text on the way; items of any list."""
_MAX_COUNT = 1_000_000
_CALL_STEPS = 5
_CONTAINERS = (str, list, tuple, dict)

_steps_left: contextvars.ContextVar[list[int]] = contextvars.ContextVar("_steps_left")


def render(template: str, variables: Mapping[str, Any]) -> str:
    """The text that a template makes of ``variables``.

    Templates see plain data only, with the functions and filters that HuggingFace gives them.
    Raises ``ValueError`` for a template that is malformed, that fails or refuses, and that
    oversteps the sandbox or the limits.
    """
    jinja2 = _jinja2()
    try:
        compiled = _compile(template)
    except (jinja2.TemplateError, RecursionError) as error:
        raise ValueError(f"the chat template is malformed: {_describe(error)}") from error
    data = {name: _plain(value) for name, value in variables.items()}
    _check_messages(data.get("messages"))
    try:
        return _run(compiled, data)
    except jinja2.exceptions.SecurityError as error:
        raise ValueError(f"the chat template did what is not allowed: {error}") from error
    except jinja2.TemplateError as error:
        raise ValueError(
            f"the chat template refuses this conversation: {_describe(error)}"
        ) from error
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"the chat template asked for too much: {type(error).__name__}") from error
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the chat template failed: {type(error).__name__}: {error}") from error


def _run(compiled: jinja2.Template, data: dict[str, Any]) -> str:
    token = _steps_left.set([MAX_STEPS])
    try:
        pieces: list[str] = []
        size = 0
        for piece in compiled.generate(data):
            size += len(piece)
            if size > MAX_SIZE:
                raise _refusal(f"its text is longer than {MAX_SIZE} characters")
            pieces.append(piece)
        return "".join(pieces)
    finally:
        _steps_left.reset(token)


def _jinja2() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            "chat templates need the `jinja2` package: pip install jinja2", name="jinja2"
        ) from error
    return jinja2


def _describe(error: BaseException) -> str:
    line = getattr(error, "lineno", None)
    text = str(error) or type(error).__name__
    return f"{text} (line {line})" if line else text


def _refusal(text: str) -> Exception:
    error: Exception = _jinja2().exceptions.SecurityError(text)
    return error


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise TypeError(
            'messages must be a list of dicts such as {"role": "user", "content": "Hi"}'
        )


def _plain(value: Any) -> Any:
    """Rebuilt out of JSON's types, so that a template cannot reach the methods of anything richer."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy scalar
        return _plain(value.item())
    raise TypeError(
        f"a chat template takes text, numbers, lists and dicts, not {type(value).__name__}"
    )


@functools.lru_cache(maxsize=16)
def _compile(template: str) -> jinja2.Template:
    return _environment().from_string(template)


@functools.cache
def _environment() -> jinja2.Environment:
    """The environment that Transformers renders in, with limits on time and memory added."""
    import jinja2.ext
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """``{% generation %}`` marks what the assistant wrote; for the text it means nothing."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(["+", "*", "**", "%"])

        def _parse(self, *args: Any) -> nodes.Template:
            tree = super()._parse(*args)
            _add_checks(tree)
            return tree

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_operation(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(*args: Any, **kwargs: Any) -> Any:
            _step(_CALL_STEPS)
            function = getattr(args[2], "__wrapped__", args[2])  # the sandbox wraps str.format
            if isinstance(getattr(function, "__self__", None), str):
                _check_text_method(function.__name__, (function.__self__, *args[3:]), kwargs)
            return _checked(ImmutableSandboxedEnvironment.call(*args, **kwargs))

    environment = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols],
        finalize=_check_printable,
    )
    for name in ("center", "indent", "replace", "join", "format", "batch", "slice", "wordwrap"):
        environment.filters[name] = _limited(name, environment.filters[name])
    environment.filters.update(_counted=_counted, _checked=_checked, tojson=_to_json)
    environment.globals.pop("lipsum", None)
    environment.globals.update(
        raise_exception=_raise_exception,
        strftime_now=lambda style: datetime.now().strftime(style),
        dict=lambda *args, **kwargs: dict(*args, **kwargs),
        namespace=_namespace_class(),
    )
    return environment


def _add_checks(tree: Any) -> None:
    """Lets every loop be counted, and every text that is put together be measured."""
    from jinja2 import nodes

    for loop in list(tree.find_all(nodes.For)):
        loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None)
    for joined in list(tree.find_all(nodes.Concat)):
        joined.nodes = [nodes.Filter(nodes.Concat(joined.nodes), "_checked", [], [], None, None)]
    for block in list(tree.find_all(nodes.AssignBlock)):
        block.filter = nodes.Filter(block.filter, "_checked", [], [], None, None)


def _namespace_class() -> type:
    from jinja2.utils import Namespace

    class TemplateNamespace(Namespace):
        """A namespace that takes no underscored names."""

        def __init__(*args: Any, **kwargs: Any) -> None:
            self, *rest = args
            Namespace.__init__(self)
            for name, value in dict(*rest, **kwargs).items():
                TemplateNamespace.__setitem__(self, name, value)

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise _refusal(f"a namespace takes no underscored name, found {name!r}")
            Namespace.__setitem__(self, name, value)

    return TemplateNamespace


def _raise_exception(message: str) -> None:
    raise _jinja2().TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without Jinja2's HTML escapes, which no model was trained on."""
    _check_printable(value)
    if isinstance(indent, int) and indent > 64:
        raise _refusal(f"an indent of {indent!r:.40}")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


# Limits


def _step(cost: int = 1) -> None:
    left = _steps_left.get()
    left[0] -= cost
    if left[0] < 0:
        raise _refusal(f"it takes more than {MAX_STEPS} steps")


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _step()
        yield item


def _checked(value: Any) -> Any:
    if isinstance(value, _CONTAINERS) and len(value) > MAX_SIZE:
        raise _refusal(f"it makes a value of more than {MAX_SIZE} items")
    return value


def _check_printable(value: Any) -> Any:
    """Refuses what would be huge as text, such as a list of lists of lists… that share their parts."""
    if isinstance(value, list | tuple | dict):
        todo, size = [value], 0
        while todo:
            item = todo.pop()
            size += len(item) if isinstance(item, str) else 1
            if size > _MAX_COUNT:
                raise _refusal(f"it prints a value of more than {_MAX_COUNT} parts")
            if isinstance(item, dict):
                todo += [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple):
                todo += item
    return value


def _check_operation(operator: str, left: Any, right: Any) -> None:
    """Refuses arithmetic whose result would fill the memory or take for ever."""
    if operator == "**":
        if any(not isinstance(x, int | float) or abs(x) > 1_000_000 for x in (left, right)):
            raise _refusal(f"the power {left!r:.40} ** {right!r:.40}")
        if isinstance(right, int) and right > 64:
            raise _refusal(f"the power {left!r:.40} ** {right!r:.40}")
    elif operator == "*":
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, _CONTAINERS) and isinstance(times, int):
                if len(sequence) * times > _MAX_COUNT:
                    raise _refusal(f"{len(sequence)} items times {times!r:.40}")
            elif isinstance(sequence, int) and sequence.bit_length() > 4096:
                raise _refusal("an integer of more than 4096 bits")
    elif operator == "+":
        size = sum(len(value) for value in (left, right) if isinstance(value, _CONTAINERS))
        if size > MAX_SIZE:
            raise _refusal(f"it makes a value of more than {MAX_SIZE} items")
    elif isinstance(left, str):
        _check_format(left)


def _check_format(text: str) -> None:
    digits = "".join(c if c.isdigit() else " " for c in text).split()
    if any(len(run) > 5 for run in digits):
        raise _refusal(f"the format {text!r:.40}")


def _check_text_method(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuses what would make a huge text before it is made; ``args`` begins with the text itself."""
    if any(isinstance(x, int) and abs(x) > _MAX_COUNT for x in (*args, *kwargs.values())):
        raise _refusal(f"{name} with a count of more than {_MAX_COUNT}")
    texts = [x for x in (*args, *kwargs.values()) if isinstance(x, str)]
    if name in ("format", "format_map"):
        _check_format(texts[0])
    if name == "replace" and len(texts) > 2:
        size = texts[0].count(texts[1]) * len(texts[2])
    elif name == "join" and len(args) > 1 and isinstance(args[1], _CONTAINERS):
        size = len(args[1]) * len(args[0])
    else:
        return
    if size > MAX_SIZE:
        raise _refusal(f"it makes a text of more than {MAX_SIZE} characters")


def _limited(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja2 with the checks of a method call."""

    @functools.wraps(filter_)
    def call(*args: Any, **kwargs: Any) -> Any:
        # The ones that take a context or an environment have it in front.
        first = 1 if hasattr(filter_, "jinja_pass_arg") else 0
        values = list(args[first:])
        if name == "join":
            values[0] = list(values[0])
            _check_text_method(name, ("".join(values[1:2]), values[0]), kwargs)
        else:
            _check_text_method(name, tuple(values), kwargs)
        return _checked(filter_(*args[:first], *values, **kwargs))

    return call
