"""The sandbox that chat templates run in: Jinja, with its work and the size of its text counted.

The environment is that of transformers' `apply_chat_template` without anything that reaches
outside. The size of a text is checked before the text is made, so that a template can neither run
for ever nor fill the memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import do_indent
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

# Characters of one rendering; a conversation of 128,000 tokens has about half a million.
LONGEST_TEXT = 2**22
# Turns of loops, calls and kibibytes of text of one rendering; the tool-calling templates of
# current model families need about ten a message.
MOST_STEPS = 100_000
# Methods of text that a template may call. Others fill or format to any length.
_TEXT = frozenset(
    {
        "strip",
        "lstrip",
        "rstrip",
        "upper",
        "lower",
        "capitalize",
        "title",
        "startswith",
        "endswith",
        "split",
        "rsplit",
        "splitlines",
        "replace",
        "count",
        "find",
        "index",
        "isdigit",
        "isalpha",
        "isspace",
        "removeprefix",
        "removesuffix",
    }
)
_KEPT_FILTERS = (
    "trim",
    "upper",
    "lower",
    "capitalize",
    "title",
    "length",
    "count",
    "first",
    "last",
    "default",
    "d",
    "list",
    "items",
    "dictsort",
    "reverse",
    "int",
    "float",
    "map",
    "select",
    "selectattr",
    "reject",
    "rejectattr",
)
# What Jinja's compiler adds to a call within a loop or a block.
_SCOPES = ("_loop_vars", "_block_vars")
# What a template's `{% generation %}` blocks begin and end with: empty, or marks to look for.
MARKS = ("_generation_begin", "_generation_end")
# Whole numbers up to here are exact as float64; a template that counts needs no larger ones.
_LARGEST = 2**53

_left: ContextVar[list[int]] = ContextVar("steps left of a rendering")


class _TooMuchError(TemplateError):
    """A rendering takes too many steps or too much text."""


def _spend(steps: int) -> None:
    left = _left.get()
    left[0] -= steps
    if left[0] < 0:
        raise _TooMuchError(f"more than {MOST_STEPS} steps")


@contextmanager
def counted_steps() -> Iterator[None]:
    """Allows one rendering `MOST_STEPS` steps."""
    token = _left.set([MOST_STEPS])
    try:
        yield
    finally:
        _left.reset(token)


def fits(length: int) -> None:
    """Refuses text that is too long, and takes the steps that it costs.

    Raises:
        TemplateError: The text is too long, or no steps are left.
    """
    if length > LONGEST_TEXT:
        raise _TooMuchError(f"more than {LONGEST_TEXT} characters")
    _spend(1 + length // 1024)


def _length(value: object) -> int:
    return len(value) if isinstance(value, str | list | tuple | dict) else 1


class Names(Namespace):
    """Jinja's namespace, which refuses names that begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"the name {name!r} is not allowed")
        super().__setitem__(name, value)


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` renders its body between two variables, `MARKS`."""

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Parses the block to its body and what is around it."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (
            nodes.Output([nodes.Name(name, "load", lineno=line)], lineno=line) for name in MARKS
        )
        return [begin, *body, end]


def bounded_range(*numbers: int) -> range:
    """Python's `range`; each number costs a step."""
    found = range(*numbers)
    _spend(len(found))
    return found


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with bounded loops, calls, operators and filters.

    Args:
        names: Functions and classes that a template may use.
    """

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, names: Mapping[str, object]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            cache_size=0,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
        )
        kept = {name: _counted(self.filters[name]) for name in _KEPT_FILTERS}
        self.filters = {
            **kept,
            "replace": _replace,
            "indent": _indent,
            "join": _join,
            "string": str,
            "safe": str,
            "tojson": _to_json,
            "_turns": _turns,
            "_joined": _join,
        }
        self.globals = dict(names)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = _filter(loop.iter, "_turns")
        _measure_joins(tree)
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Checks the size of an operator's result before it is computed."""
        numbers = [abs(v) for v in (left, right) if type(v) in (int, float, bool)]
        if operator == "+" and not numbers:
            fits(_length(left) + _length(right))
        elif operator == "*" and len(numbers) == 1:
            fits(max(_length(left), _length(right)) * int(numbers[0]))
        elif len(numbers) < 2 or operator == "**" or max(numbers) > _LARGEST:
            raise SecurityError(f"{operator} of anything but small numbers")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allows text the methods in `_TEXT` only."""
        if isinstance(obj, str | bytes) and attr not in _TEXT:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Calls an object and counts it as a step."""
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and __obj.__name__ == "replace":
            own = {name: value for name, value in kwargs.items() if name not in _SCOPES}
            return _replace(owner, *args, **own)
        fits(_length(owner) + sum(_length(value) for value in (*args, *kwargs.values())))
        return super().call(__context, __obj, *args, **kwargs)


def _filter(value: Any, name: str) -> nodes.Expr:
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


def _measure_joins(node: nodes.Node) -> None:
    """Replaces each `~` by a filter that checks the size, which Jinja's own `~` does not."""
    for field, value in list(node.iter_fields()):
        if isinstance(value, list):
            setattr(node, field, [_measured(item) for item in value])
        else:
            setattr(node, field, _measured(value))


def _measured(item: Any) -> Any:
    if not isinstance(item, nodes.Node):
        return item
    _measure_joins(item)
    if isinstance(item, nodes.Concat):
        return _filter(nodes.List(item.nodes, lineno=item.lineno), "_joined")
    return item


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)  # keeps the marks by which Jinja passes its context
    def counted(*args: Any, **kwargs: Any) -> Any:
        fits(sum(_length(value) for value in args))
        return function(*args, **kwargs)

    return counted


def _turns(value: Any) -> list[Any]:
    items = list(value)
    _spend(len(items))
    return items


def _join(values: Any, separator: str = "") -> str:
    texts = [str(value) for value in values]
    fits(sum(len(text) + len(separator) for text in texts))
    return separator.join(texts)


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    text = str(text)
    fits(len(text) + text.count(old) * len(new))
    return text.replace(old, new, count)


def _indent(text: str, width: int = 4, first: bool = False, blank: bool = False) -> str:
    text = str(text)
    fits(len(text) + (text.count("\n") + 1) * int(width))
    return do_indent(text, int(width), first, blank)


def _to_json(value: Any, ensure_ascii: bool = False, sort_keys: bool = False) -> str:
    text = json.dumps(value, ensure_ascii=ensure_ascii, sort_keys=sort_keys)
    fits(len(text))
    return text
