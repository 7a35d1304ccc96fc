"""Tokenizers and chat templates against Transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import infinilm
import pytest
from infinilm import Tokenizer
from infinilm.chat_template import render
from text_models import byte_level, sentencepiece_like, write_tokenizer

transformers = pytest.importorskip("transformers")
from transformers.utils.chat_template_utils import render_jinja_template  # noqa: E402

TEXTS = [
    "Once upon a time, the girl",
    "  two  spaces \n\n and lines\n",
    "é 你好 🦙🦙 x",
    "<s>special</s> tokens <|im_start|>user",
    "",
    " ",
]
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be <b>kind</b> & é."},
    {"role": "user", "content": "Hi "},
    {"role": "assistant", "content": "\nYes?"},
    {"role": "user", "content": "What's 1 + 1?"},
]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"a": 1}}}]


@pytest.fixture(params=[byte_level, sentencepiece_like], ids=lambda make: str(make.__name__))
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write_tokenizer(tmp_path, request.param())
    return tmp_path


def check_same(directory: Any) -> None:
    mine = Tokenizer.from_pretrained(directory)
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    for special in (True, False):
        for text in TEXTS:
            ids = mine.encode(text, add_special_tokens=special)
            assert ids == theirs.encode(text, add_special_tokens=special)
            for skip in (True, False):
                text_of = theirs.decode(ids, skip_special_tokens=skip)
                assert mine.decode(ids, skip_special_tokens=skip) == text_of
    batch = theirs(TEXTS)["input_ids"]
    assert mine.encode_batch(TEXTS) == batch
    for name in ("bos", "eos", "pad", "unk"):
        assert getattr(mine, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")
    assert len(mine) == len(theirs)


def test_auto_tokenizer(directory: Path) -> None:
    check_same(directory)


def test_sample_model() -> None:
    check_same(infinilm.sample_model())


# The idioms of the templates that chat models come with, one for each family.
TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "llama2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}"
        "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
        "{% for message in loop_messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
        "{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' "
        "+ message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}"
        "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "llama3": (
        "{{- bos_token }}\n"
        "{%- if custom_tools is defined %}\n    {%- set tools = custom_tools %}\n{%- endif %}\n"
        "{%- if not date_string is defined %}\n    {%- set date_string = '26 Jul 2024' %}\n"
        "{%- endif %}\n{%- if not tools is defined %}\n    {%- set tools = none %}\n{%- endif %}\n"
        "{%- if messages[0]['role'] == 'system' %}\n"
        "    {%- set system_message = messages[0]['content']|trim %}\n"
        "    {%- set messages = messages[1:] %}\n{%- else %}\n"
        '    {%- set system_message = "" %}\n{%- endif %}\n'
        '{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}\n'
        '{{- "Today Date: " + date_string + "\\n\\n" }}\n'
        "{%- if tools is not none %}\n    {%- for t in tools %}\n"
        '        {{- t | tojson(indent=4) }}\n        {{- "\\n\\n" }}\n    {%- endfor %}\n'
        "{%- endif %}\n"
        "{{- system_message }}\n"
        "{%- for message in messages %}\n"
        "    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}\n"
        "        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
        " + message['content'] | trim + '<|eot_id|>' }}\n    {%- endif %}\n{%- endfor %}\n"
    ),
    "qwen3": (
        "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n"
        "{%- for message in messages[::-1] %}\n"
        "    {%- set index = (messages|length - 1) - loop.index0 %}\n"
        "    {%- if ns.multi_step_tool and message.role == 'user' and message.content is string"
        " and not(message.content.startswith('<tool_response>')) %}\n"
        "        {%- set ns.multi_step_tool = false %}\n"
        "        {%- set ns.last_query_index = index %}\n    {%- endif %}\n{%- endfor %}\n"
        "{%- for message in messages %}\n"
        "    {%- if message.content is string %}\n        {%- set content = message.content %}\n"
        "    {%- else %}\n        {%- set content = '' %}\n    {%- endif %}\n"
        "    {{- '<|im_start|>' + message.role + '\\n' + content.lstrip('\\n') }}\n"
        "    {%- if loop.last or loop.index0 > ns.last_query_index %}last{% endif %}\n"
        "{%- endfor %}\n"
        "{%- if add_generation_prompt and enable_thinking is defined "
        "and enable_thinking is false %}"
        "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}\n"
        "{{ tools | tojson }}{{ 'a,b'.split(',')[-1] }}"
        "{{ messages | map(attribute='role') | list }}"
    ),
    "generation": (
        "{% for m in messages %}\n{% if m.role == 'assistant' %}\n{% generation %}\n"
        "{{ m.content }}{{ eos_token }}\n{% endgeneration %}\n{% else %}\n{{ m.content }}\n"
        "{% endif %}\n{% if loop.index0 > 1 %}{% break %}{% endif %}\n{% endfor %}\n"
    ),
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("prompt", [True, False])
def test_templates(template: str, tools: Any, prompt: bool) -> None:
    extra = {"bos_token": "<s>", "eos_token": "</s>", "enable_thinking": False}
    theirs, _ = render_jinja_template(
        [MESSAGES], tools=tools, chat_template=template, add_generation_prompt=prompt, **extra
    )
    data = {"messages": MESSAGES, "tools": tools, "documents": None, **extra}
    assert render(template, {**data, "add_generation_prompt": prompt}) == theirs[0]


def test_apply_chat_template(directory: Path) -> None:
    template = TEMPLATES["chatml"]
    mine = Tokenizer.from_pretrained(directory)
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    mine.chat_template = theirs.chat_template = template
    text = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert mine.apply_chat_template(MESSAGES, tokenize=False) == text
    ids = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    assert mine.apply_chat_template(MESSAGES) == ids
