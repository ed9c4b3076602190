"""The tree of a compiled CEL expression, as far as we look at it.

The library hands a checked expression out as the message `cel.expr.CheckedExpr` of
https://github.com/google/cel-spec (proto/cel/expr/checked.proto and syntax.proto). Only the fields
that are named here are read; numbers and names are those of the specification.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "tillwise.cel"
# Message -> field -> (number, type); a star stands for many.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "CheckedExpr": {"expr": (4, "Expr")},
    "Expr": {
        "const_expr": (3, "Constant"),
        "ident_expr": (4, "Ident"),
        "select_expr": (5, "Select"),
        "call_expr": (6, "Call"),
        "list_expr": (7, "CreateList"),
        "struct_expr": (8, "CreateStruct"),
        "comprehension_expr": (9, "Comprehension"),
    },
    "Constant": {
        "bool_value": (2, "bool"),
        "int64_value": (3, "int64"),
        "double_value": (5, "double"),
        "string_value": (6, "string"),
    },
    "Ident": {"name": (1, "string")},
    "Select": {"operand": (1, "Expr"), "field": (2, "string"), "test_only": (3, "bool")},
    "Call": {"target": (1, "Expr"), "function": (2, "string"), "args": (3, "Expr*")},
    "CreateList": {"elements": (1, "Expr*")},
    "CreateStruct": {"message_name": (1, "string"), "entries": (2, "Entry*")},
    "Entry": {"map_key": (3, "Expr"), "value": (4, "Expr")},
    "Comprehension": {
        "iter_var": (1, "string"),
        "iter_range": (2, "Expr"),
        "accu_init": (4, "Expr"),
        "loop_condition": (5, "Expr"),
        "loop_step": (6, "Expr"),
        "result": (7, "Expr"),
    },
}
Node = Any  # an `Expr` message
# The parts of a comprehension that run once for every element.
LOOPED = ("loop_condition", "loop_step")


@cache
def _checked_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="tillwise_cel.proto", package=_PACKAGE, syntax="proto3"
    )
    for message, fields in _MESSAGES.items():
        made = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            many, kind = kind.endswith("*"), kind.rstrip("*")
            field = made.field.add(name=name, number=number)
            field.label = _FIELD.LABEL_REPEATED if many else _FIELD.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                # In a group of alternatives, so that a zero that was said is told from none.
                field.type = getattr(_FIELD, f"TYPE_{kind.upper()}")
                if message == "Constant":
                    field.oneof_index = 0
        if message == "Constant":
            made.oneof_decl.add(name="said")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.CheckedExpr"))


def tree_of(serialized: bytes) -> Node:
    """The root of an expression that the library wrote."""
    return _checked_class().FromString(any_pb2.Any.FromString(serialized).value).expr


def kind_of(node: Node) -> str:
    """Which alternative `node` is, by the name of its field."""
    found = [field.name for field, _ in node.ListFields() if field.name.endswith("_expr")]
    return found[0] if found else ""


def children(node: Node) -> Iterator[tuple[str, Node]]:
    """The nodes right below `node`, each with the name of its part."""
    kind = kind_of(node)
    if not kind or kind in ("const_expr", "ident_expr"):
        return
    of = getattr(node, kind)
    parts = [of, *of.entries] if kind == "struct_expr" else [of]
    for part in parts:
        for field, value in part.ListFields():
            if field.type == field.TYPE_MESSAGE and field.message_type.name == "Expr":
                # Python's own lists of messages do not share a class with those of C.
                many = not hasattr(value, "ListFields")
                yield from ((field.name, one) for one in (value if many else [value]))


def literal(node: Node) -> bool | int | str | None:
    """The constant that `node` is, None for any other node or constant."""
    if kind_of(node) != "const_expr":
        return None
    said = node.const_expr.WhichOneof("said")
    if said in ("bool_value", "int64_value", "string_value"):
        value: bool | int | str = getattr(node.const_expr, said)
        return value
    return None


def name_of(node: Node) -> str | None:
    """The variable that `node` is, None for any other node."""
    return str(node.ident_expr.name) if kind_of(node) == "ident_expr" else None
