"""Expressions without arithmetic, regular expressions or look-ups by key, evaluated here as CEL has
it: most that merchants write are of that kind. The library's own evaluation is as quick where it
follows another, but a decision finds the caches cold, and then it costs ten times as much."""

from collections.abc import Callable, Mapping
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Final

from contract.expression_tree import Node, kind_of, literal, name_of
from contract.expression_variables import Value

# A step is what to do and what to do it to: (VALUE, value), (VARIABLE, name), (SIZE, step), ...
Step = tuple[Any, ...]
VALUE, VARIABLE, AND, OR, NOT, IN, SIZE, ANY, ALL = range(9)
EQUAL, OTHER, LESS, AT_MOST, MORE, AT_LEAST = range(9, 15)
_OPERATORS: Final = {
    **{"_&&_": AND, "_||_": OR, "!_": NOT, "@in": IN, "size": SIZE},
    **{"_==_": EQUAL, "_!=_": OTHER, "_<_": LESS, "_<=_": AT_MOST, "_>_": MORE, "_>=_": AT_LEAST},
}
_COMPARES: Final[Mapping[int, Callable[[Any, Any], bool]]] = {
    IN: lambda member, container: member in container,
    **{EQUAL: eq, OTHER: ne, LESS: lt, AT_MOST: le, MORE: gt, AT_LEAST: ge},
}
_RESULT = "@result"  # what a macro over a list has so far
_MACROS: Final = {("_||_", False): ANY, ("_&&_", True): ALL}


def steps_of(node: Node) -> Step | None:
    """The steps of the expression with this tree, whose form and types have been checked; None
    where it is of another kind."""
    value, name = literal(node), name_of(node)
    if value is not None:
        return VALUE, value
    if name is not None:
        return VARIABLE, name
    match kind_of(node):
        case "list_expr":
            values = [literal(one) for one in node.list_expr.elements]
            return None if None in values else (VALUE, values)
        case "call_expr":
            call = node.call_expr
            parts = [steps_of(one) for one in call.args]
            if call.function in _OPERATORS and None not in parts and parts:
                return _OPERATORS[call.function], *parts
        case "comprehension_expr":
            return _over_list(node.comprehension_expr)
    return None


def _over_list(macro: Any) -> Step | None:
    """The steps of `exists` and `all`, which the library has written out as loops."""
    step = macro.loop_step
    if kind_of(step) != "call_expr" or name_of(macro.result) != _RESULT:
        return None
    kind = _MACROS.get((step.call_expr.function, literal(macro.accu_init)))  # type: ignore[arg-type]
    before, *inner = step.call_expr.args
    if kind is None or name_of(before) != _RESULT or len(inner) != 1:
        return None
    members, condition = steps_of(macro.iter_range), steps_of(inner[0])
    if members is None or condition is None:
        return None
    return kind, members, condition, macro.iter_var


def outcome(step: Step, values: Mapping[str, Value]) -> Any:
    """What `step` comes to; None where a value is missing, unless it is the same whatever that
    is."""
    kind = step[0]
    if kind == VARIABLE:
        return values.get(step[1])
    if kind == VALUE:
        return step[1]
    if kind in (ANY, ALL):
        return _of_members(step, values)
    own = step[1]
    first: Any = values.get(own[1]) if own[0] == VARIABLE else outcome(own, values)
    if kind in (AND, OR):
        decided = kind == OR
        if first is decided:
            return first
        second = outcome(step[2], values)
        return second if second is decided or first is not None else None
    if first is None:
        return None
    if kind == NOT:
        return not first
    if kind == SIZE:
        return len(first)
    own = step[2]
    second = own[1] if own[0] == VALUE else outcome(own, values)
    return None if second is None else _COMPARES[kind](first, second)


def _of_members(step: Step, values: Mapping[str, Value]) -> bool | None:
    kind, members, condition, name = step
    decided: bool = kind == ANY  # by one member of whom this is so
    every = outcome(members, values)
    if every is None:
        return None
    own, unknown = dict(values), False
    for one in every:
        own[name] = one
        said: bool | None = outcome(condition, own)
        if said is decided:
            return decided
        unknown |= said is None
    return None if unknown else not decided
