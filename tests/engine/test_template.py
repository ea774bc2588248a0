"""Chat templates: what real ones rely on works, and hostile ones stop."""

from __future__ import annotations

import time

import pytest

from localllm.engine.template import MAX_SECONDS, NAMED, ChatTemplate, named_template
from localllm.errors import TemplateError, UsageError
from localllm.types import Message

TALK = [Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye")]
NESTED = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
DOUBLED = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x OP ns.x %}{% endfor %}"

HOSTILE = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "endless output": "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    "repeated text": "{{ 'x' * 50000000 }}",
    "doubling by +": DOUBLED.replace("OP", "+"),
    "doubling by ~": DOUBLED.replace("OP", "~"),
    "doubling by capture": "{% set ns=namespace(a='x') %}{% for i in range(60) %}{% set y %}{{ ns.a }}{{ ns.a }}"
    "{% endset %}{% set ns.a = y %}{% endfor %}",
    "wide %": "{{ '%1000000000d' % 1 }}",
    "wide format": "{{ '{:>1000000000}'.format(1) }}",
    "wide method": "{{ 'x'.center(1000000000) }}",
    "wide filter": "{{ 'x'|center(1000000000) }}",
    "deep json": NESTED + "{{ ns.x|tojson }}",
    "deep text": NESTED + "{{ ns.x ~ '' }}",
    "replaced": "{% set a = 'x' * 4000000 %}{{ a.replace('x', a)|length }}",
    "slow filter": "{{ ('x' * 10000000)|wordwrap(1)|length }}",
    "power": "{{ 7 ** 99999999 }}",
    "recursion": "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_a_runaway_template_is_stopped(source: str) -> None:
    begin = time.monotonic()
    with pytest.raises(TemplateError, match="was stopped"):
        ChatTemplate(source).render(TALK)
    assert time.monotonic() - begin < MAX_SECONDS * 10, "stopped by its bounds, not by luck"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].__init__ }}",
        "{{ cycler.__globals__ }}",
    ],
)
def test_nothing_outside_is_within_reach(source: str) -> None:
    try:
        rendered = ChatTemplate(source).render(TALK)
    except TemplateError:
        return
    assert rendered == "", "an unsafe attribute is undefined, and undefined prints nothing"


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ 1 +", "{% unknown %}", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}"]
)
def test_a_template_that_does_not_compile_says_so(source: str) -> None:
    with pytest.raises(TemplateError, match="does not compile"):
        ChatTemplate(source)


def test_chatml_is_written_as_everybody_writes_it() -> None:
    rendered = ChatTemplate(NAMED["chatml"]).render(TALK[1:])
    assert rendered == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_hugging_face_templates_use_is_there() -> None:
    source = (
        "{{ bos_token }}{%- for m in messages -%}{% if loop.index0 > 1 %}{% break %}{% endif %}"
        "{% generation %}[{{ m.role | upper }}:{{ m['content'] | trim | tojson }}]{% endgeneration %}{%- endfor %}"
        "{{ strftime_now('%%') }}{{ '%s-%s' % (1, 2) }}{{ 'a{}b'.format(3) }}{{ [1, 2] | join(',') }}"
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
    )
    rendered = ChatTemplate(source, bos_token="<s>").render([Message("user", "é <b>"), Message("user", " x "), TALK[0]])
    assert rendered == '<s>[USER:"é <b>"][USER:"x"]%1-2a3b1,23'


def test_tools_and_what_else_a_turn_holds_reach_the_template() -> None:
    source = "{{ tools | tojson }}{% for m in messages %}{{ m.tool_calls[0].function.name }}{% endfor %}"
    call = Message("assistant", "", '{"tool_calls": [{"function": {"name": "look"}}]}')
    assert ChatTemplate(source).render([call], tools='[{"name": "é"}]') == '[{"name": "é"}]look'
    assert ChatTemplate(source.replace("{% for", "{% if tools %}x{% endif %}{% for")).render([call]) == "nulllook"


def test_a_template_may_refuse_a_conversation() -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    with pytest.raises(TemplateError, match=r"refused this conversation \(no system turn\)"):
        ChatTemplate(source).render(TALK)


def test_text_in_a_message_is_not_a_template() -> None:
    rendered = ChatTemplate(NAMED["chatml"]).render([Message("user", "{{ 7 * 7 }}{% for %}")])
    assert "{{ 7 * 7 }}{% for %}" in rendered


def test_our_own_templates_have_names() -> None:
    for name in NAMED:
        assert "Hi" in ChatTemplate(named_template(name), bos_token="<s>").render(TALK)
    with pytest.raises(UsageError, match="chatml"):
        named_template("nope")
