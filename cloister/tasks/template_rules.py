"""Rules for a recipe's chat template: it may use a small part of Jinja; checked before use.

Such a template is text that somebody else wrote and that runs over private records. It is accepted
by its SHA-256 (`accept.templates` in `site.toml`), and only where it stays within these rules: it
reads the messages and the special tokens, goes over the messages or a short range once at a time,
and builds text from them. What these rules exclude cannot be used to test a record for something.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from jinja2 import Environment, TemplateSyntaxError, nodes

from cloister.bounds import shortened
from cloister.errors import MOST_PROBLEMS, UsageError
from cloister.printable import one_line

# Longest template in characters; the longest that model families ship (with tools) have about
# 12,000.
LONGEST = 16_384
# Longest `range` of a loop.
LONGEST_RANGE = 64

# Most characters quoted of a Jinja error, which may repeat any part of the template.
MOST_SAID = 200
# What Jinja and Python raise for a text besides TemplateError: for a number of 5,000 digits, a lone
# surrogate, or more nested blocks than Python's compiler takes.
UNREADABLE = (ValueError, ArithmeticError, MemoryError, SyntaxError)

# Each of the following reads only its operand and returns no longer text.
METHODS = frozenset(
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
    }
)
FILTERS = frozenset(
    {
        "trim",
        "upper",
        "lower",
        "capitalize",
        "title",
        "length",
        "count",
        "first",
        "last",
        "string",
        "default",
    }
)
TESTS = frozenset({"defined", "undefined", "none", "string", "even", "odd", "true", "false"})
SPECIAL_TOKENS = frozenset(
    f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)
NAMES = frozenset({"messages", "add_generation_prompt", "loop"}) | SPECIAL_TOKENS
ATTRIBUTES = frozenset(
    {"role", "content", "index", "index0", "revindex", "revindex0", "first", "last", "length"}
)
_PLAIN = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.If,
    nodes.Assign,
    nodes.Const,
    nodes.List,
    nodes.Tuple,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Add,
    nodes.Sub,
    nodes.Neg,
    nodes.Concat,
    nodes.Slice,
    nodes.Continue,
    nodes.Break,
    nodes.Keyword,
)
_WORDS = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.Macro: "macro",
    nodes.CallBlock: "call",
    nodes.FilterBlock: "filter block",
    nodes.With: "with",
    nodes.AssignBlock: "set block",
    nodes.NSRef: "namespace",
    nodes.Dict: "a dictionary",
    nodes.Mul: "*",
    nodes.Pow: "**",
    nodes.Div: "/",
    nodes.FloorDiv: "//",
}


def template_sha256(text: str) -> str:
    """SHA-256 of a template's UTF-8, in hex: what `accept.templates` lists."""
    return hashlib.sha256(text.encode()).hexdigest()


def template_problems(text: str) -> list[str]:
    """The rules that a recipe's template breaks, one line each; empty if it may be used.

    Args:
        text: The template. Nothing of it is run.

    Guarantees:
        A template without problems reads nothing but the messages and the special tokens, has no
        loop within a loop, and each loop takes the messages or at most `LONGEST_RANGE` numbers.
    """
    if len(text) > LONGEST:
        return [f"{len(text)} characters; at most {LONGEST} are taken"]
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    try:
        tree = environment.parse(text)
        own = {
            node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"
        }  # what it sets itself
        found = [f"line {node.lineno}: {problem}" for node, problem in _problems(tree, own, 0)]
    except TemplateSyntaxError as error:
        return [f"line {error.lineno}: {one_line(str(error.message), MOST_SAID)}"]
    except RecursionError:
        return ["nested too deeply"]
    except UNREADABLE as error:
        return [f"it cannot be read ({one_line(str(error), MOST_SAID)})"]
    return list(dict.fromkeys(found))


def check_template(text: str) -> None:
    """Refuses a recipe's template that breaks a rule.

    Raises:
        UsageError: Every problem, one line each.
    """
    problems = template_problems(text)
    if problems:
        more = len(problems) - MOST_PROBLEMS
        raise UsageError(
            "\n".join(
                f"task.chat_template: {problem}; write it with text of the messages and special "
                "tokens alone, or leave it out for the base's own"
                for problem in problems[:MOST_PROBLEMS]
            )
            + (f"\n… and {more} more problems" if more > 0 else "")
        )


def _problems(node: nodes.Node, own: set[str], loops: int) -> Iterator[tuple[nodes.Node, str]]:
    """The problems of a node and of all below it; `loops`: how many loops it is in."""
    problem = _problem(node, own, loops)
    if problem:
        yield node, problem
        return
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
        # The method itself was checked with its call.
        children: list[nodes.Node] = [node.node.node, *node.args]
    elif isinstance(node, nodes.For) and isinstance(node.iter, nodes.Call):
        children = [child for child in node.iter_child_nodes() if child is not node.iter]
    else:
        children = list(node.iter_child_nodes())
    inner = loops + isinstance(node, nodes.For)
    for child in children:
        yield from _problems(child, own, inner)


def _problem(node: nodes.Node, own: set[str], loops: int) -> str | None:
    """The rule that a node itself breaks, or None."""
    match node:
        case nodes.For():
            return _loop(node, loops)
        case nodes.Name():
            if node.ctx == "store" and node.name in NAMES | {"range"}:
                return f"the name {shortened(node.name)} may not be set"
            known = node.name in NAMES | own
            return None if known else f"the name {shortened(node.name)} is not known here"
        case nodes.Getattr():
            return None if node.attr in ATTRIBUTES else f"the attribute {shortened(node.attr)}"
        case nodes.Getitem():
            return _item(node.arg)
        case nodes.Filter():
            return None if node.name in FILTERS else f"the filter {shortened(node.name)}"
        case nodes.Test():
            return None if node.name in TESTS else f"the test {shortened(node.name)}"
        case nodes.Call():
            return _call(node)
        case nodes.Mod():
            right = node.right
            fine = isinstance(right, nodes.Const) and type(right.value) is int and right.value > 0
            fine = fine and not _strings(node.left)
            return None if fine else "% of anything but numbers, by a whole number above 0"
    if isinstance(node, _PLAIN):
        return None
    return f"{_WORDS.get(type(node), type(node).__name__)} is not allowed"


def _loop(node: nodes.For, loops: int) -> str | None:
    if node.recursive:
        return "a recursive loop"
    if loops:
        return "a loop within a loop"
    source = node.iter
    if isinstance(source, nodes.Getitem) and isinstance(source.arg, nodes.Slice):
        source = source.node
    if isinstance(source, nodes.Name) and source.name == "messages":
        return None
    if isinstance(source, nodes.Call) and isinstance(source.node, nodes.Name):
        numbers = [arg.value for arg in source.args if isinstance(arg, nodes.Const)]
        whole = all(type(number) is int for number in numbers)
        if (
            source.node.name == "range"
            and whole
            and 1 <= len(numbers) == len(source.args) <= 2
            and not (source.kwargs or source.dyn_args or source.dyn_kwargs)
            and numbers[-1] - (numbers[0] if len(numbers) == 2 else 0) <= LONGEST_RANGE
        ):
            return None
    return f"a loop over anything but the messages, or a range of at most {LONGEST_RANGE} numbers"


def _item(arg: nodes.Expr) -> str | None:
    """An item by name is role or content; by number, any."""
    if (
        isinstance(arg, nodes.Const)
        and isinstance(arg.value, str)
        and arg.value
        not in (
            "role",
            "content",
        )
    ):
        return f"the item {shortened(arg.value)}"
    return (
        "an item by a computed name" if not isinstance(arg, nodes.Const) and _strings(arg) else None
    )


def _strings(node: nodes.Node) -> bool:
    """Whether a node is, or contains, a text constant."""
    held = [node, *node.find_all(nodes.Const)]
    return any(isinstance(c, nodes.Const) and isinstance(c.value, str) for c in held)


def _call(node: nodes.Call) -> str | None:
    called = node.node
    if not isinstance(called, nodes.Getattr) or called.attr not in METHODS:
        name = getattr(called, "attr", getattr(called, "name", "an expression"))
        return f"a call of {shortened(name)}"
    if node.kwargs or node.dyn_args is not None or node.dyn_kwargs is not None:
        return f"a call of {shortened(called.attr)} by named or gathered arguments"
    return None
