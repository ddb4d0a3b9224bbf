"""Where templates come from, and what they may not do."""

import json
import re
import time
from pathlib import Path

import pytest
from chat_tokenizers import turns

from lit_llm.data.prompts import ChatTemplate
from lit_llm.data.tokenizer import Bytes, from_state, to_state

# Where they come from.


def test_a_template_from_a_file_and_from_a_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{% for m in messages %}é{{ m.content }}{% endfor %}", "utf-8")
    assert ChatTemplate.of(str(path), Bytes()).render(turns("a", "b")) == "éaéb"
    tokenizer = Bytes()
    tokenizer.chat_template = "{{ messages[0].content + eos_token }}"
    assert ChatTemplate.of("source", tokenizer).render(turns("a", "b")) == "a<|endoftext|>"


def test_a_tokenizer_of_any_kind_keeps_its_template() -> None:
    """In the state that a checkpoint carries; without one, the state is what it was. It decides about no ids."""
    plain, chatting = Bytes(), Bytes()
    chatting.chat_template = "{{ messages }}"
    assert "chat_template" not in to_state(plain)
    assert from_state(json.loads(json.dumps(to_state(chatting)))).chat_template == "{{ messages }}"
    assert chatting.fingerprint() == plain.fingerprint()


def test_templates_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"there is no chat template 'alpacca' \(No such file .*\); name one of alpaca"
    ):
        ChatTemplate.of("alpacca", Bytes())
    with pytest.raises(ValueError, match="this one brings none; name another: alpaca, chatml"):
        ChatTemplate.of("source", Bytes())
    with pytest.raises(ValueError, match="there is no chat template '~nobody-of-that-name"):
        ChatTemplate.of("~nobody-of-that-name/a.jinja", Bytes())
    (tmp_path / "latin.jinja").write_bytes(b"\xe9\xff")
    with pytest.raises(ValueError, match="it is not UTF-8"):
        ChatTemplate.of(str(tmp_path / "latin.jinja"), Bytes())


# What a template may not do.


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("a\n{% if %}", "line 2: Expected an expression"),
        ("a\n\n{{ nobody.there }}", "line 3: 'nobody' is undefined"),
        ("{{ raise_exception('no system') }}", "line 1: no system"),
        ("{{ messages[0].content + 1 }}", "line 1: can only concatenate str"),
        ("{{ ''.__class__.__mro__ }}", "line 1: access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ messages.append(1) }}", "line 1: access to attribute 'append' of 'list' object is unsafe"),
        ("{% set n = namespace() %}{% set n.__init__ = 1 %}", "begins with an underscore"),
        ("{{ cycler }}{{ lipsum() }}", "'lipsum' is undefined"),
    ],
)
def test_a_template_that_fails_names_its_line(source: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        ChatTemplate(source, "mine.jinja").render(turns("a", "b"))
    assert str(refused.value).startswith("the chat template 'mine.jinja' cannot be rendered: ")


TEN = ",".join(["a"] * 10)
BOMBS = {
    "nested loops": "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    "a huge range": "{% for i in range(10**9) %}{% endfor %}",
    "a large range": "{% for i in range(99999) %}{{ range(100000) | list | length }}{% endfor %}",
    "a range of ranges": "{{ range(0, 10**5, 1) | list + range(-99999, 99999) | list }}",
    "recursive loops": "{% for i in range(3) recursive %}{{ loop(range(100000)) }}{% endfor %}",
    "macros": "{% macro f(n) %}{{ f(n - 1) if n else '' }}{{ f(n - 1) if n else '' }}{% endmacro %}{{ f(60) }}",
    "endless macros": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a long text": "{{ 'a' * 10**10 }}",
    "a long text, turned": "{{ 10**10 * 'a' }}",
    "a long list": "{{ [1] * 10**9 }}",
    "a large power": "{{ 9**(9**9) }}",
    "large products": "{% set n = namespace(x=9) %}{% for i in range(90) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "doubling by +": "{% set n = namespace(x='a') %}{% for i in range(90) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling by ~": "{% set n = namespace(x='a') %}{% for i in range(90) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling by blocks": "{% set x = 'aaaaaaaa' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "doubling by replace": "{% set x = 'a' * 1000000 %}{{ x.replace('a', x) }}{{ x | replace('a', x) }}",
    "doubling by join": "{{ range(100000) | map('string') | join('a' * 100000) }}",
    "lists of lists": "{% set a = ['x'] %}" + f"{{% set a = [{TEN}] %}}" * 12 + "{{ a }}",
    "lists of lists as JSON": "{% set a = ['x'] %}" + f"{{% set a = [{TEN}] %}}" * 12 + "{{ a | tojson }}",
    "a wide number": "{{ '%1000000000d' % 1 }}",
    "a wide number, asked for": "{{ '%*d' % (1000000000, 1) }}",
    "a wide number by a filter": "{{ '%1000000000d' | format(1) }}",
    "a wide number by a method": "{{ '{:1000000000}'.format(1) }}",
    "a wide number, in two steps": "{{ '{:{}}'.format(1, 1000000000) }}",
    "a wide text": "{{ 'x'.ljust(1000000000) }}",
    "a wide text by a filter": "{{ 'x' | center(1000000000) }}",
    "its own text": "{% for i in range(9000) %}" + "a" * 9000 + "{% endfor %}",
    "a join of a range": "{{ range(3000) | join('a' * 100000) | length }}",
    "a join by a method": "{{ ('a' * 100000).join('b' * 3000) | length }}",
    "one field again and again": "{{ ('{0}' * 300).format('b' * 1000000) | length }}",
    "one name again and again": "{{ (('%(a)s' * 300) % {'a': 'b' * 1000000}) | length }}",
    "a wide number, as a text": "{{ '{:{w}}'.format('a', w='100000000') | length }}",
    "a wide margin": "{{ ('x\\n' * 300) | indent('b' * 1000000) | length }}",
    "a wide margin of JSON": "{{ ([1] * 9000) | tojson(indent=99999) | length }}",
    "nested lists": "{% set n = namespace(l=[]) %}{% set x = 'a' * 9000000 %}"
    "{% for i in range(90) %}{% set n.l = [n.l, x ~ i] %}{% endfor %}",
    "long texts put together": "{% set x = 'a' * 9000000 %}{% for i in range(9000) %}{% set y = x + 'b' %}{% endfor %}",
    "long texts searched": "{% set x = 'a' * 9000000 %}{% for i in range(90000) %}{{ 'b' in x }}{% endfor %}",
    "long texts cut": "{% set x = 'a' * 9000000 %}{% for i in range(90000) %}{% set y = x[1:] %}{% endfor %}",
    "long texts called": "{% set x = 'a' * 9000000 %}{% for i in range(9000) %}{% set y = x.upper() %}{% endfor %}",
    "tabs": "{{ ('\\t' * 3000).expandtabs(99999) | length }}",
    "tags": "{{ ('<>' * 5000000) | striptags }}",
    "a long source": "a" * 200_001,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_soon(name: str) -> None:
    """S25: within a few seconds on any machine, where unbounded it would take minutes to years, or all memory."""
    start = time.monotonic()
    with pytest.raises(ValueError, match="the chat template 'bomb' cannot be rendered: "):
        ChatTemplate(BOMBS[name], "bomb").render(turns("a", "b"))
    assert time.monotonic() - start < 20


def test_what_templates_do_is_possible() -> None:
    """Of transformers' environment: loop controls, JSON without escapes, namespaces, dates, formats, slices."""
    source = """{%- set n = namespace(last='') %}
{%- for m in messages[::-1] %}{% if loop.index > 2 %}{% break %}{% endif %}{% set n.last = m.role %}{% endfor %}
{{- n.last ~ '/' ~ messages | length }}{{ {'a': '<é>'} | tojson }}{{ '%s-%d' % ('x', 2) }}{{ '{:>3}'.format(7) }}
{{- strftime_now('%Y') | length }}{{ ['a', 'b'] | join(', ') }}{{ messages | map(attribute='role') | list }}
{%- for k, v in {'k': 1}.items() %}{{ k }}{{ v }}{% endfor %}{{ 'a-b'.split('-')[1] }}{{ nothing is defined }}"""
    got = ChatTemplate(source).render(turns("a", "b", "c"))
    assert got == "assistant/3{\"a\": \"<é>\"}x-2  74a, b['user', 'assistant', 'user']k1bFalse"
