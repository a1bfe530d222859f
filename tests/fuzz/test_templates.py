"""Fuzzes chat templates: a recipe's and a base's own, read and rendered over any conversation."""

from hypothesis import example, given
from hypothesis import strategies as st

from cloister.data.records import Message
from cloister.tasks.template import ChatTemplate
from tests.support.fuzzing import fuzz, hostile_bytes, must_read
from tests.tasks.test_template import ALTERNATING, CHATML, OWN

PARTS = [
    "{% for m in messages %}",
    "{% endfor %}",
    "{{ m.role }}",
    "{{ m['content'] }}",
    "{% if m %}",
    "{% endif %}",
    "{% set a = messages %}",
    "{{ a | trim }}",
    "{{ range(9999999999) }}",
    "{{ 'x' * 10 ** 9 }}",
    "{{ m.content.__class__ }}",
    "{{ self }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ a[0:9:0] }}",
    "{{ messages | tojson }}",
    "{{ '%c' % 1114112 }}",
    "{{ 1 / 0 }}",
    "{{ 9" + "9" * 5000 + " }}",
    "{{ raise_exception('\x1b[2J' ~ 'x') }}",
    "{{ strftime_now('%' * 100) }}",
    "{% raw %}",
    "{#",
    "{{ namespace(a=1) }}",
    "{{ undefined.a.b }}",
    "{{ 'a' | replace('', 'b' * 100) }}",
    "\x1b[2J",
    "\u202e",
    "{{ lipsum() }}",
    "{{ cycler }}",
    "{% filter upper %}",
    "{{ messages.pop() }}",
    "{{ ''.join(messages) }}",
    "{{ '{}'.format(m) }}",
    "{{ [1] * 99999 }}",
    "{{ 2 ** 99999 }}",
    "{{ messages[99999999999999999999] }}",
    "{{ 'x'.encode() }}",
    "{{ bos_token ~ 1 }}",
    "\x00",
]
templates = (
    st.lists(st.sampled_from(PARTS) | st.text(max_size=8), max_size=8).map("".join)
    | st.sampled_from([CHATML, ALTERNATING, OWN]).flatmap(
        lambda whole: hostile_bytes(whole.encode()).map(lambda raw: raw.decode(errors="replace"))
    )
    | st.text(max_size=60)
)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
conversations = st.lists(
    st.builds(
        Message,
        st.sampled_from(["user", "assistant", "system"]) | st.text(max_size=8),
        st.text(max_size=20) | st.just("x" * 10_000),
    ),
    max_size=4,
)


@fuzz
@given(templates, conversations, st.booleans(), st.booleans())
@example("{{" * 30_000, [], False, False)
@example("(" * 60_000, [], True, False)
@example("{{ " + "(" * 5000 + " }}", [], False, False)
@example("{{ " + "-" * 20_000 + "1 }}", [], False, False)
@example("{% if a %}" * 6000, [], True, False)
@example("{{ '" + "\\" * 20_001 + "' }}", [], False, False)
@example("{{ m.a }}{{ n.b }}" * 3000, [], False, False)
@example("{{ 9" + "9" * 5000 + " }}", [], False, False)
def test_templates(text: str, conversation: list[Message], is_own: bool, generation: bool) -> None:
    found = must_read(lambda: ChatTemplate(text, is_own=is_own), len(text))
    if isinstance(found, ChatTemplate):
        must_read(
            lambda: found.render(conversation, TOKENS, generation=generation),
            len(text) + sum(len(turn.content) for turn in conversation),
        )
