"""Chat templates: HuggingFace's rules, and what a hostile one may not do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from infinilm import Tokenizer
from infinilm.chat_template import render
from text_models import CHAT_TEMPLATE, byte_level, write_tokenizer

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "1 < 2 & 'three'?"},
]


def show(template: str, **variables: Any) -> str:
    return render(template, {"messages": MESSAGES, "add_generation_prompt": True, **variables})


def test_chatml(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, byte_level(), chat_template=CHAT_TEMPLATE)
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    text = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    assert text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n1 < 2 & 'three'?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    without = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=False, tokenize=False)
    assert text == without + "<|im_start|>assistant\n"
    ids = tokenizer.apply_chat_template(MESSAGES)
    assert ids == tokenizer.encode(text, add_special_tokens=False)
    assert ids[0] == tokenizer.token_to_id("<|im_start|>")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        # trim_blocks and lstrip_blocks, as HF renders
        (
            "{% for m in messages %}\n  {% if 1 %}\n{{ m.role }};\n  {% endif %}\n{% endfor %}\n",
            "system;\nuser;\n",
        ),
        ("{{ messages[1].content | tojson }}", "\"1 < 2 & 'three'?\""),
        ("{{ {'b': 'é', 'a': 1} | tojson }}", '{"b": "é", "a": 1}'),
        ("{{ {'b': 1, 'a': [2]} | tojson(indent=1) }}", '{\n "b": 1,\n "a": [\n  2\n ]\n}'),
        (
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
            "{{ m.role }}{% endfor %}",
            "user",
        ),
        ("{% for m in messages %}{{ m.role }}{% break %}{% endfor %}", "system"),
        (
            "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}",
            "1/2False 2/2True ",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
            "{% endfor %}{{ ns.n }}",
            "2",
        ),
        ("{% generation %}{{ messages[0].role }}{% endgeneration %}", "system"),
        ("{{ bos_token }}{{ 'a' ~ 1 ~ 'b' }}", "<s>a1b"),
        ("{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(f('q')) }}", "[[q]]"),
        ("{{ messages | map(attribute='role') | join(', ') }}", "system, user"),
        ("{{ '%s-%02d' % ('a', 3) }} {{ '{}+{}'.format(1, 2) }}", "a-03 1+2"),
        ("{{ '%s'|format('u') }} {{ 'a,b'.split(',')[1] }} {{ ' x '|trim }}", "u b x"),
        ("{{ 'abc'|replace('b', '') }} {{ 'Q'.lower() }}", "ac q"),
        ("{% set x %}in{% endset %}{{ x }} {{ dict(a=1).a }}", "in 1"),
        ("{{ 2 ** 3 }} {{ 'ab' * 2 }} {{ 7 % 4 }}", "8 abab 3"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}{{ messages[::-1][0].role }}", "012user"),
        ("{% if tools is none and documents is not defined %}plain{% endif %}", "plain"),
        ("{{ strftime_now('%%') }}", "%"),
        ("<b>&amp;</b>", "<b>&amp;</b>"),
    ],
)
def test_rendering(template: str, expected: str) -> None:
    assert show(template, bos_token="<s>", tools=None) == expected


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% for %}", "malformed"),
        ("{{ messages[0].content }", "malformed"),
        ("{% endif %}", r"malformed.*line 1"),
        ("{{ x | no_such_filter }}", "malformed"),
        ("{{ raise_exception('Roles must alternate') }}", "refuses this conversation: Roles must"),
        ("{{ missing.attribute }}", "'missing' is undefined"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{% include '/etc/passwd' %}", "failed"),
        ("{% import 'os' as os %}", "failed"),
    ],
)
def test_malformed_templates(template: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        show(template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ raise_exception.__globals__.keys() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(a=1) }}",
        "{% set ns = namespace(__class__=1) %}",
        "{{ '{0.__class__.__mro__}'.format(1) }}",
    ],
)
def test_the_sandbox_holds(template: str) -> None:
    before = json.dumps(MESSAGES)
    with pytest.raises(ValueError, match="template"):
        show(template)
    assert json.dumps(MESSAGES) == before


_DOUBLED = "{% set x = 'aaaaaaaaaaaaaaaa' %}"


@pytest.mark.parametrize(
    "template",
    [
        "{% for x in range(10**9) %}{% endfor %}",
        "{% for x in range(99999) %}{% for y in range(99999) %}{% endfor %}{% endfor %}",
        "{% for x in range(99999) %}{{ 'a' * 999 }}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * ['a'] }}",
        "{{ 9**9**9 }}",
        "{{ ''.ljust(10**9) }}",
        "{{ 'x' | center(10**9) }}",
        "{{ '%1000000000d' % 3 }}",
        "{{ '{:1000000000}'.format(3) }}",
        "{{ messages | tojson(indent=10**9) }}",
        "{{ ('a' * 900000) | replace('a', 'b' * 900000) }}",
        "{{ ('a' * 900000).replace('a', 'b' * 900000) }}",
        "{{ ('a' * 900000).join('b' * 900000) }}",
        _DOUBLED + "{% set x = x ~ x %}" * 60,
        _DOUBLED + "{% set x = x + x %}" * 60,
        _DOUBLED + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x | tojson }}",
    ],
)
def test_limits(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        show(template)


def test_a_long_conversation_is_within_the_limits() -> None:
    messages = [{"role": "user", "content": "word " * 200}] * 2000
    text = render(CHAT_TEMPLATE, {"messages": messages})
    assert len(text) > 2_000_000


def test_templates_see_plain_data_only() -> None:
    class Loud(str):
        __slots__ = ()

        def shout(self) -> str:
            return "!"

    message = {"role": Loud("user"), "content": np.float32(1.5), "n": np.int64(3)}
    text = render("{{ messages[0].content }} {{ messages[0].n }}", {"messages": [message]})
    assert text == "1.5 3"
    with pytest.raises(ValueError, match="refuses"):
        render("{{ messages[0].role.shout() }}", {"messages": [message]})
    with pytest.raises(TypeError, match="not object"):
        render("", {"messages": [{"role": object()}]})


@pytest.mark.parametrize("messages", ["Hi", [["user", "Hi"]], {"role": "user"}, None])
def test_messages_of_the_wrong_kind(messages: Any) -> None:
    with pytest.raises(TypeError, match="messages must be a list of dicts"):
        render(CHAT_TEMPLATE, {"messages": messages})


def test_no_template(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, byte_level())
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.chat_template is None
    with pytest.raises(ValueError, match=r"has no chat template.*set tokenizer\.chat_template"):
        tokenizer.apply_chat_template(MESSAGES)
    tokenizer.chat_template = "{{ messages[0].role }}"
    assert tokenizer.apply_chat_template(MESSAGES, tokenize=False) == "system"
    tokenizer.chat_template = None
    assert tokenizer.chat_template is None


def test_named_templates(tmp_path: Path) -> None:
    written = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "tools: {{ tools | length }} {{ extra }}"},
    ]
    write_tokenizer(tmp_path, byte_level(), chat_template=written)
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.apply_chat_template(MESSAGES, tokenize=False) == "plain"
    asked = tokenizer.apply_chat_template(MESSAGES, tokenize=False, tools=[{}], extra=3)
    assert asked == "tools: 1 3"
    by_name = tokenizer.apply_chat_template(MESSAGES, tokenize=False, chat_template="default")
    assert by_name == "plain"
    given = tokenizer.apply_chat_template(MESSAGES, tokenize=False, chat_template="{{ 1 + 1 }}")
    assert given == "2"


def test_template_files_go_first(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, byte_level(), chat_template="of the config")
    (tmp_path / "chat_template.jinja").write_text("of the file é", encoding="utf-8")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("of rag")
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.apply_chat_template(MESSAGES, tokenize=False) == "of the file é"
    asked = tokenizer.apply_chat_template(MESSAGES, tokenize=False, chat_template="rag")
    assert asked == "of rag"


@pytest.mark.parametrize("written", [3, {"default": "x"}, ["x"], [{"name": "default"}]])
def test_damaged_template_entries(tmp_path: Path, written: Any) -> None:
    write_tokenizer(tmp_path, byte_level(), chat_template=written)
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: chat_template"):
        Tokenizer.from_pretrained(tmp_path)
