"""Templates of recipes are restricted, and rendering has no side effects."""

import pytest

from cloister.data.records import ChatRecord, Message
from cloister.errors import MisfitError, UsageError
from cloister.tasks.build import build_task
from cloister.tasks.chat import PLAIN_TEMPLATE
from cloister.tasks.config import TaskConfig
from cloister.tasks.template import ChatTemplate
from cloister.tasks.template_rules import LONGEST, template_problems
from cloister.tasks.template_sandbox import LONGEST_TEXT
from tests.support.models import word_tokenizer

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' }}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# After the shape of Llama-2's: a system turn, alternation, special tokens.
ALTERNATING = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0].content %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for message in messages[1:] -%}"
    "{% if loop.index0 % 2 == 0 and loop.first and system %}{{ bos_token ~ system }}{% endif %}"
    "{%- if message.role in ['user', 'assistant'] and message.content is defined %}"
    " [{{ message.role | upper }}] {{ message.content.strip() }}{{ eos_token }}\n"
    "{%- endif %}{% endfor %}"
)
# After the shape of tool-calling templates: macros, namespaces, a date, exceptions, JSON.
OWN = (
    "{% macro turn(m) %}{{ '<' ~ m.role ~ '>' }}{{ m.content | replace('a', 'aa') }}{% endmacro %}"
    "{% set ns = namespace(last='') %}"
    "{{ strftime_now('%d %B %Y') if false else '' }}"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}{% if m.role == ns.last %}{{ raise_exception('alternate') }}{% endif %}"
    "{% set ns.last = m.role %}{{ turn(m) }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}"
    "{% if m.tool_calls %}{% for call in m.tool_calls %}{{ call.name }}{% endfor %}{% endif %}"
    "{{ ', '.strip() }}{{ m | tojson }}{{ [m.role, 'x'] | join('-') }}{% endfor %}"
)
TURNS = (Message("system", "no rash"), Message("user", " a cough "), Message("assistant", "rest"))
PIN = "1234"

# What each would tell of a record, or take of a machine. None of it may be accepted.
FORBIDDEN = {
    "raise under a condition": "{% if '12' in messages[0].content %}{{ raise_exception('') }}"
    "{% endif %}",
    "an undefined name called": "{{ unknown() }}",
    "loops in loops": "{% for a in messages %}{% for b in messages %}x{% endfor %}{% endfor %}",
    "a range in a loop": "{% for a in messages %}{% for b in range(9) %}x{% endfor %}{% endfor %}",
    "a huge range": "{% for a in range(1000000000) %}x{% endfor %}",
    "a range of the record": "{% for a in range(messages[0].content | length) %}x{% endfor %}",
    "a loop over text": "{% for a in messages[0].content %}x{% endfor %}",
    "a loop over another name": "{% set c = messages[0].content %}{% for a in c %}x{% endfor %}",
    "the messages set anew": "{% set messages = 'abc' %}{% for a in messages %}x{% endfor %}",
    "range set anew": "{% set range = messages %}x",
    "a recursive loop": "{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "a class": "{{ ''.__class__ }}",
    "a class by item": "{{ ''['__class__'] }}",
    "a class by a computed item": "{{ ''['__cl' + 'ass__'] }}",
    "attr": "{{ '' | attr('__class__') }}",
    "map": "{{ messages | map('upper') }}",
    "format": "{{ '{0.__class__}'.format(messages) }}",
    "formatting to any length": "{{ '%9999999999d' % 1 }}",
    "filling to any length": "{{ 'a'.ljust(9999999999) }}",
    "center": "{{ 'a' | center(9999999999) }}",
    "multiplied text": "{{ messages[0].content * 9999999999 }}",
    "a power": "{{ 9 ** 9999999 }}",
    "replace": "{{ messages[0].content.replace('', 'xxxxxxxx') }}",
    "cycler": "{{ cycler('a', 'b') }}",
    "joiner": "{{ joiner() }}",
    "lipsum": "{{ lipsum() }}",
    "namespace": "{% set ns = namespace(a=1) %}",
    "the clock": "{{ strftime_now('%H') }}",
    "include": "{% include 'a' %}",
    "import": "{% import 'a' as a %}",
    "from import": "{% from 'a' import b %}",
    "extends": "{% extends 'a' %}",
    "block": "{% block a %}{% endblock %}",
    "self": "{{ self }}",
    "macro": "{% macro f(a) %}{{ f(a) }}{{ f(a) }}{% endmacro %}{{ f(1) }}",
    "call": "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}x{% endcall %}",
    "filter block": "{% filter upper %}x{% endfilter %}",
    "with": "{% with a = 1 %}x{% endwith %}",
    "set block": "{% set a %}x{% endset %}",
    "a dictionary": "{{ {'a': messages}.items() }}",
    "division by the record": "{{ 1 // (messages | length - 3) }}",
    "gathered arguments": "{{ 'a'.strip(*messages) }}",
    "too long a text": "x" * (LONGEST + 1),
    "nested too deeply": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "no template at all": "{% for m in messages %}",
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_recipe_s_template_that_asks_or_takes_too_much_is_refused_unrun(name: str) -> None:
    assert template_problems(FORBIDDEN[name])
    with pytest.raises(UsageError, match=r"task\.chat_template: "):
        build_task(
            TaskConfig(kind="causal-lm", chat_template=FORBIDDEN[name]), (), word_tokenizer()
        )


@pytest.mark.parametrize("text", [PLAIN_TEMPLATE, CHATML, ALTERNATING])
def test_usual_templates_are_within_the_rules(text: str) -> None:
    assert template_problems(text) == []


@pytest.mark.parametrize("generation", [False, True])
@pytest.mark.parametrize(
    ("text", "is_own"),
    [(PLAIN_TEMPLATE, False), (CHATML, False), (ALTERNATING, False), (OWN, True)],
)
def test_the_text_is_the_one_that_transformers_renders(
    text: str, is_own: bool, generation: bool
) -> None:
    tokenizer = word_tokenizer()
    expected = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in TURNS],
        chat_template=text,
        add_generation_prompt=generation,
        tokenize=False,
    )
    template = ChatTemplate(text, is_own=is_own)
    found = template.render(TURNS, tokenizer.special_tokens_map, generation=generation)
    assert found == expected
    assert "rest" in found


# What a base's own template could do, which may raise: each ends soon, in a misfit or in text.
GREEDY = {
    "nested loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "a huge range": "{% for a in range(10 ** 30) %}x{% endfor %}",
    "a long range": "{% for a in range(1000000000) %}x{% endfor %}",
    "doubling": "{% set n = namespace(a='x') %}{% for i in range(99) %}{% set n.a = n.a + n.a %}"
    "{% endfor %}{{ n.a }}",
    "doubling by ~": "{% set n = namespace(a='x') %}{% for i in range(99) %}"
    "{% set n.a = n.a ~ n.a %}{% endfor %}{{ n.a }}",
    "doubling lists": "{% set n = namespace(a=[1]) %}{% for i in range(99) %}"
    "{% set n.a = n.a + n.a %}{% endfor %}{{ n.a }}",
    "squaring": "{% set n = namespace(a=9) %}{% for i in range(99) %}{% set n.a = n.a * n.a %}"
    "{% endfor %}{{ n.a }}",
    "replacing": "{% set n = namespace(a='x') %}{% for i in range(99) %}"
    "{% set n.a = n.a.replace('x', 'xx') %}{% endfor %}",
    "replacing by a filter": "{% set n = namespace(a='x') %}{% for i in range(99) %}"
    "{% set n.a = n.a | replace('x', 'xx') %}{% endfor %}",
    "joining": "{% set n = namespace(a='x') %}{% for i in range(99) %}"
    "{% set n.a = [n.a, n.a] | join(n.a) %}{% endfor %}",
    "multiplied text": "{{ 'x' * 9999999999 }}",
    "a multiplied list": "{{ [1] * 9999999999 }}",
    "formatting": "{{ '%9999999999d' % 1 }}",
    "filling": "{{ 'x'.ljust(9999999999) }}",
    "macros": "{% macro f(a) %}{{ f(a) }}{{ f(a) }}{% endmacro %}{{ f(1) }}",
    "macros by depth": "{% macro f(a) %}{% if a < 60 %}{{ f(a + 1) }}{{ f(a + 1) }}{% endif %}"
    "{% endmacro %}{{ f(1) }}",
    "a recursive loop": "{% for a in [1] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "a class": "{{ ''.__class__.__mro__ }}",
    "a hidden name": "{% set n = namespace(__class__=1) %}{{ n.__init__.__globals__ }}",
    "raising": "{{ raise_exception('no') }}",
    "division by zero": "{{ 1 / 0 }}",
    "another global": "{{ cycler('a').next() }}",
}


@pytest.mark.parametrize("name", GREEDY)
def test_a_base_s_own_template_ends_in_a_misfit(name: str) -> None:
    with pytest.raises(MisfitError) as found:
        ChatTemplate(GREEDY[name], is_own=True).render(TURNS, {}, generation=False)
    assert found.value.reason == "its conversation cannot be rendered by the template"


def test_sequential_doubling_within_the_rules_is_cut_short() -> None:
    text = "{% set a = messages[1].content %}" + "{% set a = a + a %}" * 60 + "{{ a }}"
    with pytest.raises(MisfitError, match=f"more than {LONGEST_TEXT} characters"):
        ChatTemplate(text).render(TURNS, {}, generation=False)


def test_a_date_never_changes_from_day_to_day() -> None:
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}", is_own=True)
    assert template.render(TURNS, {}, generation=False) == "26 Jul 2024"


def test_a_template_that_raises_for_one_record_leaves_the_others_alone() -> None:
    text = (
        f"{{% if '{PIN}' in messages[1].content %}}{{{{ raise_exception('') }}}}{{% endif %}}"
        + CHATML
    )
    template = ChatTemplate(text, is_own=True)
    secret = (TURNS[0], Message("user", f"the PIN is {PIN}"), TURNS[2])
    before = template.render(TURNS, {}, generation=False)
    with pytest.raises(MisfitError):
        template.render(secret, {}, generation=False)
    assert template.render(TURNS, {}, generation=False) == before


def test_the_base_s_own_template_given_by_a_recipe_is_its_own() -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = OWN
    task = build_task(TaskConfig(kind="causal-lm", chat_template=OWN), (), tokenizer)
    assert task.encode(ChatRecord(TURNS[1:])).input_ids
