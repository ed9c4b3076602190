"""A merchant's conditions: expressions in CEL (https://cel.dev) over `VARIABLES`, for rules and
offers alike.

When one is saved it is compiled, its types are checked, and it is tried on hostile samples; what is
wrong, could be slow or grow without bound is refused with the place and the reason. At a checkout
it never raises: one that cannot be evaluated does not hold, and says so.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Final

from cel_expr_python import cel

from contract.expression_steps import Step, outcome, steps_of
from contract.expression_tree import LOOPED, Node, children, kind_of, literal, name_of, tree_of
from contract.expression_variables import KIND, Kind, Scope, Value, hostile_samples, variables_of

MAX_LENGTH: Final = 1_000
MAX_NODES: Final = 200
MAX_LOOPS: Final = 2  # macros that go over a list, one beside the other
MAX_SECONDS: Final = 0.002  # of computing on the worst sample; the usual takes a thousandth of it
_TRIES: Final = 5  # another process may be what made one slow

_TYPES: Final[Mapping[Kind, Any]] = {
    "bool": cel.Type.BOOL,
    "int": cel.Type.INT,
    "string": cel.Type.STRING,
    "list of string": cel.Type.List(cel.Type.STRING),
    "map of int by string": cel.Type.Map(cel.Type.STRING, cel.Type.INT),
}
# Without `dyn`, `type` and messages, which get around the types, and without the clock: times are
# what a schedule is for.
_FUNCTIONS: Final = frozenset(
    {
        *("_&&_", "_||_", "!_", "_?_:_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"),
        *("_+_", "_-_", "_*_", "_/_", "_%_", "-_", "@in", "_[_]"),
        *("size", "contains", "startsWith", "endsWith", "matches", "int", "double", "string"),
        "@not_strictly_false",  # what `all` and `exists` are made of
    }
)
# What the library says of an item that is not in this cart, and may be in another.
_OF_THE_CART = ("NOT_FOUND", "UNKNOWN: Index error")
_CODE = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")
_WHERE = re.compile(r"<input>:(\d+):(\d+): (.*)")


class ExpressionRefused(ValueError):  # noqa: N818 - it names what happened, not a fault
    """The expression may not be saved; the message says why, and where."""


@dataclass(frozen=True, eq=False)
class Facts:
    """The values of the variables at one checkout. Those that are missing make an expression that
    needs them fail."""

    values: Mapping[str, Value]
    scope: Scope = "rule"

    @cached_property
    def activation(self) -> Any:
        """The values as CEL reads them, made once for all expressions."""
        return _environment(self.scope).Activation(data=self.values)


@dataclass(frozen=True, eq=False)
class Expression:
    """A compiled condition. `variables` are the names of those that it reads."""

    text: str
    scope: Scope
    variables: frozenset[str]
    root: Node = field(repr=False)
    _program: Any = field(repr=False)
    _steps: Step | None = field(repr=False)

    def holds(self, facts: Facts) -> bool | None:
        """Whether it holds; None where it could not be evaluated, which counts as no."""
        if self._steps is None:
            return self.by_the_library(facts)
        try:
            value = outcome(self._steps, facts.values)
        except Exception:  # a value of another type than its variable
            return None
        return value if isinstance(value, bool) else None

    def by_the_library(self, facts: Facts) -> bool | None:
        """The same, whatever the expression says."""
        return _evaluated(self._program, facts)[0]

    def fault(self, facts: Facts) -> str | None:
        """Why `holds` is None, in the library's words; None where it is not."""
        return _evaluated(self._program, facts)[1]


def _evaluated(program: Any, facts: Facts) -> tuple[bool | None, str | None]:
    """The answer, or why there is none. It never raises: a checkout goes on."""
    try:
        value = program.eval(facts.activation).value()
    except Exception as error:  # whatever the library says
        return None, str(error)
    return (value, None) if isinstance(value, bool) else (None, str(value))


@cache
def _environment(scope: Scope) -> Any:
    return cel.NewEnv(variables={one.name: _TYPES[one.kind] for one in variables_of(scope)})


def parse(text: str, scope: Scope = "rule") -> Expression:
    """Compile `text` and check its form and types. Raises ExpressionRefused."""
    if not text.strip():
        raise ExpressionRefused("is empty")
    if len(text) > MAX_LENGTH:
        raise ExpressionRefused(f"is longer than {MAX_LENGTH} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ExpressionRefused("is not text") from error
    try:
        program = _environment(scope).compile(text)
    except Exception as error:  # the library's, a RuntimeError
        raise ExpressionRefused(_in_words(str(error))) from error
    if program.return_type() != cel.Type.BOOL:
        said = program.return_type().name().lower()
        raise ExpressionRefused(f"must say yes or no, and is of type {said}")
    root = tree_of(program.serialize())
    _refuse_form(root)
    names = {name for node, _ in _walk(root) if (name := name_of(node)) in KIND and name}
    return Expression(text, scope, frozenset(names), root, program, steps_of(root))


def checked(text: str, scope: Scope = "rule") -> Expression:
    """`parse`, and try it on hostile samples: for what is saved. Raises ExpressionRefused."""
    expression = parse(text, scope)
    samples = sample_facts(scope)
    for pattern in _patterns(expression.root):
        # On its own: in a cart without lines it would never be looked at.
        of_it = _environment(scope).compile(
            f"''.matches({json.dumps(pattern, ensure_ascii=False)})"
        )
        fault = _evaluated(of_it, samples[0])[1]
        if fault is not None:
            raise ExpressionRefused(f"matches: {_in_words(fault)}")
    # What is slow is so on a small cart as well, and there it holds up nobody: the library lets no
    # other thread compute meanwhile.
    faults = []
    for facts in samples:
        seconds = seconds_of(expression, facts)
        if seconds > MAX_SECONDS:
            raise ExpressionRefused(
                f"takes too long: {seconds * 1_000:.1f} ms on a large cart, at most "
                f"{MAX_SECONDS * 1_000:g} may be"
            )
        faults.append(expression.fault(facts))
    if all(fault and not fault.startswith(_OF_THE_CART) for fault in faults):
        raise ExpressionRefused(f"could never be evaluated: {_in_words(str(faults[0]))}")
    return expression


def _patterns(root: Node) -> Iterator[str]:
    """The regular expressions that are written in it."""
    for node, _ in _walk(root):
        if kind_of(node) == "call_expr" and node.call_expr.function == "matches":
            yield str(literal(node.call_expr.args[-1]))


@cache
def sample_facts(scope: Scope) -> tuple[Facts, ...]:
    """The hostile samples as an expression of `scope` sees them."""
    names = {one.name for one in variables_of(scope)}
    return tuple(
        Facts({name: value for name, value in sample.items() if name in names}, scope)
        for sample in hostile_samples()
    )


def seconds_of(expression: Expression, facts: Facts) -> float:
    """Processor time of one evaluation, the best of a few where it seems slow."""
    best = float("inf")
    assert facts.activation is not None  # made beforehand: it is shared by all expressions
    for _ in range(_TRIES):
        began = time.thread_time()
        expression.holds(facts)
        best = min(best, time.thread_time() - began)
        if best <= MAX_SECONDS or best > 20 * MAX_SECONDS:
            break
    return best


def _walk(root: Node) -> Iterator[tuple[Node, int]]:
    """Every node with the number of loops around it."""
    waiting = [(root, 0)]
    while waiting:
        node, loops = waiting.pop()
        yield node, loops
        waiting += [(child, loops + (part in LOOPED)) for part, child in children(node)]


def _refuse_form(root: Node) -> None:
    nodes = list(_walk(root))
    if len(nodes) > MAX_NODES:
        raise ExpressionRefused(f"has {len(nodes)} parts, at most {MAX_NODES} may be")
    loops = 0
    for node, around in nodes:
        match kind_of(node):
            case "comprehension_expr":
                loops += 1
                if around:
                    raise ExpressionRefused("must not go over a list inside another such macro")
            case "call_expr":
                _refuse_call(node.call_expr)
            case "struct_expr":
                raise ExpressionRefused("must not make maps or messages")
    if loops > MAX_LOOPS:
        raise ExpressionRefused(f"goes over lists {loops} times, at most {MAX_LOOPS} may be")


def _refuse_call(call: Any) -> None:
    if call.function not in _FUNCTIONS:
        raise ExpressionRefused(f"must not use {call.function.strip('_@')}")
    if call.function == "matches" and not isinstance(literal(call.args[-1]), str):
        raise ExpressionRefused("matches: the pattern must be written out")


def _in_words(message: str) -> str:
    """The library's message with the place in our words, without what it draws below it."""
    found = _WHERE.search(message)
    if found is None:
        return _CODE.sub("", message.split("\n")[0]) or "is not CEL"
    line, column, said = found.groups()
    said = said.replace(" (in container '')", "").strip()
    place = f"character {column}" if line == "1" else f"line {line}, character {column}"
    return f"{place}: {said}" if int(column) > 0 else said
