"""What must be so for an expression to hold, as far as that can be told without evaluating it: so
that of hundreds of rules the few that can hold are found by looking up what is there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from contract.expression_tree import Node, children, kind_of, literal, name_of
from contract.expression_variables import KIND, Value

Atom = tuple[str, bool | int | str]  # a variable, and a value that it has, or that is one of its


@dataclass(frozen=True)
class Within:
    """The whole number `variable` must lie in [least, most]."""

    variable: str
    least: float
    most: float


@dataclass(frozen=True)
class Needs:
    """Each of `within`, and of each set in `one_of` at least one member. Nothing named: no telling.

    They are necessary, and where `exact` also sufficient: then there is nothing to evaluate.
    """

    one_of: tuple[frozenset[Atom], ...] = ()
    within: tuple[Within, ...] = ()
    exact: bool = False

    @property
    def sharpest(self) -> frozenset[Atom] | None:
        """The set to look the expression up by: of few members, and not of a yes or no, which half
        of all checkouts have."""
        return min(
            self.one_of,
            key=lambda atoms: (any(isinstance(value, bool) for _, value in atoms), len(atoms)),
            default=None,
        )

    def met(self, values: Mapping[str, Value]) -> bool | None:
        """Whether all of them are; None where a value is missing."""
        for one in self.within:
            value = values.get(one.variable)
            if value is None:
                return None
            if not one.least <= value <= one.most:  # type: ignore[operator]  # it is a number
                return False
        for atoms in self.one_of:
            for variable, wanted in atoms:
                held = values.get(variable)
                if held is None:
                    return None
                if wanted in held if isinstance(held, list | dict) else wanted == held:
                    break
            else:
                return False
        return True


_NONE: Final = Needs()
_MIRRORED: Final = {"_<_": "_>_", "_<=_": "_>=_", "_>_": "_<_", "_>=_": "_<=_", "_==_": "_==_"}


def needs_of(root: Node) -> Needs:
    """The needs of the expression with this tree."""
    if kind_of(root) == "ident_expr":
        return _holding(root, True)
    if kind_of(root) != "call_expr":
        return _NONE
    call = root.call_expr
    match call.function, list(call.args):
        case "_&&_", [left, right]:
            first, second = needs_of(left), needs_of(right)
            return Needs(
                first.one_of + second.one_of,
                first.within + second.within,
                first.exact and second.exact,
            )
        case "_||_", [left, right]:
            return _either(needs_of(left), needs_of(right))
        case "!_", [inner]:
            return _holding(inner, False)
        case "@in", [member, container]:
            return _member(member, container)
        case function, [left, right] if function in _MIRRORED:
            variable, value = name_of(left), literal(right)
            if variable is None or value is None:
                variable, value, function = name_of(right), literal(left), _MIRRORED[function]
            if variable is not None and variable in KIND and value is not None:
                return _compared(variable, function, value)
    return _NONE


def _holding(node: Node, value: bool) -> Needs:
    name = name_of(node)
    if name is None or KIND.get(name) != "bool":
        return _NONE
    return Needs((frozenset({(name, value)}),), exact=True)


def _either(first: Needs, second: Needs) -> Needs:
    """One of two: one member of one set of each, where both have one."""
    one, other = first.sharpest, second.sharpest
    if one is None or other is None:
        return _NONE
    whole = all(
        each.exact and len(each.one_of) == 1 and not each.within for each in (first, second)
    )
    return Needs((one | other,), exact=whole)


def _member(member: Node, container: Node) -> Needs:
    value, variable = literal(member), name_of(container)
    if value is not None and variable is not None and variable in KIND:
        return Needs((frozenset({(variable, value)}),), exact=True)
    name = name_of(member)
    if name is not None and name in KIND and kind_of(container) == "list_expr":
        elements = container.list_expr.elements
        values = [one for one in map(literal, elements) if one is not None]
        if len(values) == len(elements):
            return Needs((frozenset((name, one) for one in values),), exact=True)
    return _NONE


def _compared(variable: str, function: str, value: bool | int | str) -> Needs:
    if function == "_==_":
        return Needs((frozenset({(variable, value)}),), exact=True)
    if KIND[variable] != "int" or not isinstance(value, int):
        return _NONE
    infinite = float("inf")
    match function:
        case "_<_":
            span = Within(variable, -infinite, value - 1)
        case "_<=_":
            span = Within(variable, -infinite, value)
        case "_>_":
            span = Within(variable, value + 1, infinite)
        case _:
            span = Within(variable, value, infinite)
    return Needs(within=(span,), exact=True)


def sought(root: Node) -> Iterator[tuple[str, str]]:
    """The texts that the expression with this tree asks a variable for (`'a' in cart.items`), each
    with the variable's name, in the order in which they are written."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        waiting += reversed([child for _, child in children(node)])
        if kind_of(node) != "call_expr" or node.call_expr.function != "@in":
            continue
        member, container = node.call_expr.args
        text, variable = literal(member), name_of(container)
        if isinstance(text, str) and variable is not None and variable in KIND:
            yield variable, text


def atoms_of(variable: str, value: Value) -> Iterator[Atom]:
    """The atoms that a variable of this value has."""
    if isinstance(value, list | dict):
        for one in value:
            yield variable, one
    else:
        yield variable, value
