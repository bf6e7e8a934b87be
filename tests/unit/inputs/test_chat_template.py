"""Chat templates: what they give, and what hostile ones cannot do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from helpers.text_files import CHAT_TEMPLATE
from matryo.errors import CheckpointError, InputError
from matryo.inputs import chat
from matryo.inputs.chat import ChatTemplate


def render(source: str, messages: list[dict[str, Any]] | None = None) -> str:
    return ChatTemplate(source, variables={"bos_token": "<bos>"}).render(messages or [])


def test_gemma_turns() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Hi "},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "user", "content": "Bye"},
    ]
    assert render(CHAT_TEMPLATE, messages) == (
        "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
        "<start_of_turn>model\nHello<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    )


def test_without_a_generation_prompt() -> None:
    template = ChatTemplate(CHAT_TEMPLATE, variables={"bos_token": "<bos>"})
    text = template.render([{"role": "user", "content": "Hi"}], add_generation_prompt=False)
    assert text == "<bos><start_of_turn>user\nHi<end_of_turn>\n"


def test_what_the_template_refuses_is_an_input_error_in_its_words() -> None:
    with pytest.raises(InputError, match="roles must alternate"):
        render(CHAT_TEMPLATE, [{"role": "assistant", "content": "Hi"}])


@pytest.mark.parametrize(
    "messages",
    [
        ["text"],
        [{"role": "user"}],
        [{"role": "user", "content": "a", "tools": []}],
        [{"role": 1, "content": "a"}],
        [{"role": "user", "content": 1}],
        [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}],
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
    ],
)
def test_what_is_no_message_is_an_input_error(messages: list[Any]) -> None:
    with pytest.raises(InputError, match="message 0"):
        render(CHAT_TEMPLATE, messages)


@pytest.mark.parametrize(
    "source",
    [
        "{{",
        "{% for %}",
        "{% endif %}",
        "{% include 'x' %}{{",
        "{{ 'a'|center(9) }}",
        "{{ 'a'|format }}",
        "{% for x in y %}{% break %}",
    ],
)
def test_what_is_no_template_is_a_checkpoint_error(source: str) -> None:
    with pytest.raises(CheckpointError, match="not a valid chat template"):
        render(source)


ESCAPES = {
    "class": "{{ ''.__class__ }}",
    "class call": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "item": "{{ ''['__class__']['__mro__'] }}",
    "attr of function": "{{ raise_exception.__globals__ }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "map attribute": "{{ [1]|map(attribute='__class__')|list }}",
    "join attribute": "{{ ['a']|join(',', attribute='__class__') }}",
    "format method": "{{ '{0.__class__}'.format(1) }}",
    "format map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "change messages": "{{ messages.append(1) }}",
    "import": "{% import 'os' as os %}{{ os.system('true') }}",
    "include": "{% include '/etc/passwd' %}",
    "self": "{{ self.__init__.__globals__ }}",
    "cycler": "{{ cycler.__init__.__globals__ }}",
    "to bytes": "{{ (1).to_bytes(1000000000, 'big') }}",
}


def grown(step: str, start: str = "'x'", then: str = "") -> str:
    """A template that makes a value of itself sixty times."""
    loop = "{% for i in range(60) %}{% set n.x = " + step + " %}{% endfor %}"
    return "{% set n = namespace(x=" + start + ") %}" + loop + then


BOMBS = {
    "nested ranges": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "output": "{% for a in range(99999) %}{{ messages[0]['content'] * 500 }}{% endfor %}",
    "product": "{{ 'x' * 9999999999 }}",
    "list product": "{{ [0] * 9999999999 }}",
    "power": "{{ 9 ** 9 ** 9 ** 9 }}",
    "format": "{{ '%9999999999d' % 1 }}",
    "sums": grown("n.x + n.x"),
    "concatenations": grown("n.x ~ n.x"),
    "joins": grown("[n.x, n.x]|join"),
    "replaces": grown("n.x|replace('x', 'xx')"),
    "methods": grown("n.x.replace('x', 'xx')"),
    "nesting": grown("[n.x, n.x]", then="{{ n.x }}"),
    "json": grown("[n.x, n.x]", then="{{ n.x|tojson }}"),
    "numbers": grown("n.x * n.x", start="9"),
    "big range": "{% for a in range(999999999) %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "padding": "{{ 'x'.ljust(9999999999) }}",
    "zeros": "{{ 'x'.zfill(9999999999) }}",
    "tabs": "{{ '\t'.expandtabs(9999999999) }}",
    "indent": "{{ 'x'|indent(9999999999) }}",
    "json indent": "{{ [1]|tojson(9999999999) }}",
    "blocks": "{% block a %}{{ self.a() }}{% endblock %}",
}


@pytest.mark.parametrize("name", sorted(ESCAPES))
def test_templates_cannot_reach_python(name: str) -> None:
    messages = [{"role": "user", "content": "secret"}]
    try:
        text = render(ESCAPES[name], messages)
    except (InputError, CheckpointError):
        return
    assert "class" not in text and "built" not in text and len(text) < 100


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_templates_cannot_eat_the_machine(name: str) -> None:
    started = time.process_time()
    with pytest.raises((InputError, CheckpointError)):
        render(BOMBS[name], [{"role": "user", "content": "secret"}])
    # Not a speed test: what is not stopped here runs for minutes or takes all memory.
    assert time.process_time() - started < 60


def test_a_long_conversation_is_within_the_limits() -> None:
    messages = [
        {"role": "assistant" if turn % 2 else "user", "content": f"turn {turn}"}
        for turn in range(10_000)
    ]
    assert render(CHAT_TEMPLATE, messages).count("<end_of_turn>") == 10_000


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chat_template.jinja"
    with pytest.raises(CheckpointError, match="cannot be read"):
        ChatTemplate.from_file(path, variables={})
    path.write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="cannot be read"):
        ChatTemplate.from_file(path, variables={})
    path.write_text("{{ messages|length }}")
    assert ChatTemplate.from_file(path, variables={}).render([]) == "0"
    monkeypatch.setattr(chat, "MAX_TEMPLATE_BYTES", 3)
    with pytest.raises(CheckpointError, match="at most 3 bytes"):
        ChatTemplate.from_file(path, variables={})
    with pytest.raises(CheckpointError, match="at most 3 bytes"):
        ChatTemplate("long", variables={})
