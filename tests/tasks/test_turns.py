"""The tokens after the generation prompt, for templates of every kind.

The templates are short ones of our own, each with one habit of public templates.
"""

import pytest

from cloister.data.records import Message, Role
from cloister.errors import MisfitError
from cloister.tasks.template import ChatTemplate
from cloister.tasks.turns import Rendered, rendered

LOOP = "{% for m in messages %}"
ASK = "{% endfor %}{% if add_generation_prompt %}"
THOUGHT = "<think>\nquite easy\n</think>\n\n"

# Turn by turn, as ChatML.
PLAIN = f"{LOOP}<{{{{ m.role }}}}>{{{{ m.content }}}}<end>\n{ASK}<assistant>{{% endif %}}"
# Qwen 3: the last turn gets an empty thought, earlier ones lose theirs.
FORGETS = (
    f"{LOOP}<{{{{ m.role }}}}>{{% set said = m.content.split('</think>')[-1].lstrip('\n') %}}"
    "{% if m.role == 'assistant' and loop.last %}"
    "{{ m.content if '</think>' in m.content else '<think>\n\n</think>\n\n' + said }}"
    f"{{% else %}}{{{{ said }}}}{{% endif %}}<end>\n{ASK}<assistant>{{% endif %}}"
)
# DeepSeek-R1: no turn has a thought, and the prompt opens one.
OPENS = (
    f"{LOOP}<{{{{ m.role }}}}>{{{{ m.content.split('</think>')[-1].lstrip('\n') }}}}<end>"
    f"{ASK}<assistant><think>\n{{% endif %}}"
)
# GLM 4.7: turns have the closing mark alone.
CLOSES = (
    f"{LOOP}<{{{{ m.role }}}}>{{{{ '</think>' if m.role == 'assistant' else '' }}}}"
    f"{{{{ m.content }}}}{ASK}<assistant><think>{{% endif %}}"
)
# DeepSeek V3.2: the prompt has an empty thought, turns have its end.
EMPTY = CLOSES.replace("<assistant><think>", "<assistant><think></think>")
# Command A: another mark opens the answer.
WRAPS = (
    f"{LOOP}<{{{{ m.role }}}}>{{{{ '<|START_TEXT|>' if m.role == 'assistant' else '' }}}}"
    f"{{{{ m.content }}}}<|END_TEXT|>{ASK}<assistant><|START_THINKING|>{{% endif %}}"
)
# Gemma 4: an empty channel in the prompt.
CHANNEL = PLAIN.replace(
    "<assistant>{% endif %}", "<assistant><|channel>thought\n<channel|>{% endif %}"
)
# gpt-oss: the last turn ends otherwise.
RETURNS = (
    f"{LOOP}<{{{{ m.role }}}}>{{{{ m.content }}}}"
    "{{ '<return>' if loop.last and m.role == 'assistant' else '<end>' }}"
    f"{ASK}<assistant>{{% endif %}}"
)

# Template, how its prompt ends, what is learnt of one turn.
HABITS = {
    "forgets": (FORGETS, "<assistant>", "<think>\n\n</think>\n\nParis<end>"),
    "opens": (OPENS, "<assistant><think>\n", "\n</think>\n\nParis<end>"),
    "closes": (CLOSES, "<assistant><think>", "</think>Paris"),
    "empty": (EMPTY, "<assistant><think></think>", "Paris"),
    "wraps": (
        WRAPS,
        "<assistant><|START_THINKING|>",
        "<|END_THINKING|><|START_TEXT|>Paris<|END_TEXT|>",
    ),
    "channel": (CHANNEL, "<assistant><|channel>thought\n<channel|>", "Paris<end>"),
    "returns": (RETURNS, "<assistant>", "Paris<return>"),
}


def turns(*contents: str) -> tuple[Message, ...]:
    roles: tuple[Role, Role] = ("user", "assistant")
    return tuple(Message(roles[n % 2], text) for n, text in enumerate(contents))


def found(template: str, messages: tuple[Message, ...]) -> Rendered:
    own = ChatTemplate(template, is_own=True)
    return rendered(
        lambda some, flag: own.render(some, {}, generation=flag), messages, own.marked(messages, {})
    )


def learnt(whole: Rendered) -> list[str]:
    return [whole.text[first:last] for first, last in whole.spans]


@pytest.mark.parametrize("habit", HABITS)
@pytest.mark.parametrize("earlier", [(), ("hello", "good day")], ids=["first", "later"])
def test_the_last_turn_goes_on_from_its_generation_prompt(
    habit: str, earlier: tuple[str, ...]
) -> None:
    template, prompt, reply = HABITS[habit]
    messages = turns(*earlier, "capital of France?", "Paris")
    whole = found(template, messages)
    own = ChatTemplate(template, is_own=True)
    before = own.render(messages[:-1], {}, generation=True)
    assert before.endswith(prompt)
    assert whole.text.rstrip("\n") == before + reply
    assert learnt(whole) == [reply]


@pytest.mark.parametrize("content", ["a", "<", "think", "</th", "[", "reply0", "<end>", "Pa\nris "])
@pytest.mark.parametrize("habit", HABITS)
def test_whatever_a_turn_says_it_is_found(habit: str, content: str) -> None:
    template, _, reply = HABITS[habit]
    whole = found(template, turns("France?", content))
    assert learnt(whole) == [reply.replace("Paris", content)]


@pytest.mark.parametrize("habit", ["forgets", "opens"])
def test_a_record_s_own_thinking_is_learnt(habit: str) -> None:
    template, _, _ = HABITS[habit]
    opened = "<think>\n" if habit == "opens" else ""
    whole = found(template, turns("France?", f"{THOUGHT}Paris"))
    assert learnt(whole) == [f"{THOUGHT}Paris<end>".removeprefix(opened)]
    assert whole.text.count("<think>") == 1


def test_turn_by_turn_every_turn_is_learnt() -> None:
    whole = found(PLAIN, turns("France?", "Paris", "Italy?", "Rome", "thanks"))
    assert learnt(whole) == ["Paris<end>", "Rome<end>"]
    assert whole.text.endswith("<user>thanks<end>\n")


def test_marks_say_what_is_learnt_whatever_else_the_template_does() -> None:
    marked = (
        f"{LOOP}{{% if m.role == 'assistant' %}}<bot>{{% generation %}}{{{{ m.content }}}}<end>"
        "{% endgeneration %}{% else %}{{ loop.length }}{{ m.content }}{% endif %}{% endfor %}"
    )
    whole = found(marked, turns("France?", "Paris", "Italy?", "Rome"))
    assert whole.text == "4France?<bot>Paris<end>4Italy?<bot>Rome<end>"
    assert learnt(whole) == ["Paris<end>", "Rome<end>"]
    # A turn that looks like a mark.
    said = "\ue0000\ue001Paris\ue0000\ue002"
    assert learnt(found(marked, turns("France?", said))) == [f"{said}<end>"]


def test_marks_around_the_prompt_s_own_text_begin_behind_it() -> None:
    around = (
        f"{LOOP}{{% if m.role == 'assistant' %}}{{% generation %}}<bot>{{{{ m.content }}}}<end>"
        f"{{% endgeneration %}}{{% else %}}{{{{ m.content }}}}{{% endif %}}{ASK}<bot>{{% endif %}}"
    )
    whole = found(around, turns("France?", "Paris", "Italy?", "Rome"))
    assert learnt(whole) == ["Paris<end>", "Rome<end>"]


@pytest.mark.parametrize(
    "ask", ["<assistant>Here are my steps:\n", "<assistant><begin>"], ids=["words", "a mark"]
)
def test_a_prompt_that_opens_what_nobody_knows_to_close_is_refused(ask: str) -> None:
    template = PLAIN.replace("<assistant>{% endif %}", ask + "{% endif %}")
    with pytest.raises(MisfitError, match="continuation of its generation prompt"):
        found(template, turns("France?", "Paris"))


def test_a_developer_speaks_as_the_system_where_a_template_knows_none() -> None:
    messages = (Message("developer", "be brief"), *turns("France?", "Paris"))
    assert found(PLAIN, messages).text.startswith("<system>be brief")
    knows = PLAIN.replace("{{ m.role }}", "{{ m.role if m.role != 'developer' else 'dev' }}")
    assert found(knows, messages).text.startswith("<dev>be brief")


def test_a_tool_s_answer_is_context() -> None:
    messages = (*turns("weather?", "look"), Message("tool", "rain"), Message("assistant", "wet"))
    whole = found(PLAIN, messages)
    assert "<tool>rain<end>" in whole.text
    assert learnt(whole) == ["look<end>", "wet<end>"]


def test_filters_of_public_templates_are_there_and_bounded() -> None:
    own = ChatTemplate(
        "{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}"
        "{% for m in messages %}{{ m.content.replace('a', 'b') | indent(2) }}{% endfor %}",
        is_own=True,
    )
    assert own.render(turns("a\na"), {}, generation=False) == "a2b1b\n  b"
    wide = ChatTemplate("{{ messages[0].content | indent(4000000) }}", is_own=True)
    with pytest.raises(MisfitError, match="more than"):
        wide.render(turns("a\n" * 10), {}, generation=False)
