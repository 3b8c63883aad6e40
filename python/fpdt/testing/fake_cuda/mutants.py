"""Ways to break the sources of the CUDA runtime: statements dropped or moved, fewer waits, other streams."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fpdt.testing.fake_cuda.targets import TARGETS, Target

OPERATORS = ("dropStatement", "swapStatements", "otherStream", "dropCondition", "fewer", "otherValue")
ACTS = r"\.(record|wait_event|wait_stream|open|synchronize)\(|recorder\.close|set_stream|handler\(|await_gate|_enter\("
STREAM_CALLS = ("record", "wait_event", "wait_stream", "set_stream")


@dataclass(frozen=True)
class DeviceMutant:
    """`what` says the change in the words of the source; `build` gives the broken module."""

    target: Target
    operator: str
    function: str
    what: str
    build: Callable[[], ModuleType]


Change = tuple[str, str, Callable[[], None], Callable[[], None]]
"""Operator, what, and how to make and undo it in the tree."""


def device_mutants() -> list[DeviceMutant]:
    """All of them, in the order of the sources; none twice."""
    return [mutant for target in TARGETS for mutant in _mutants_of(target)]


def _mutants_of(target: Target) -> list[DeviceMutant]:
    tree = ast.parse(Path(str(target.module.__file__)).read_text(encoding="utf-8"))
    original, found = ast.unparse(tree), dict[str, DeviceMutant]()
    for name, function in _functions(tree):
        if function.name in target.left_out:
            continue
        for operator, what, change, undo in _changes(function):
            change()
            source = ast.unparse(ast.fix_missing_locations(copy.deepcopy(tree)))
            undo()
            if source != original and source not in found:
                found[source] = DeviceMutant(target, operator, name, what, _builder(target.module.__name__, source))
    return list(found.values())


def _builder(name: str, source: str) -> Callable[[], ModuleType]:
    def build() -> ModuleType:
        module = ModuleType(name)
        exec(compile(source, name, "exec"), module.__dict__)
        return module

    return build


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for member in members:
            if isinstance(member, ast.FunctionDef):
                yield prefix + member.name, member


def _changes(function: ast.FunctionDef) -> Iterator[Change]:
    yield from _of_block(function.body)
    keywords = [node for node in ast.walk(function) if isinstance(node, ast.keyword)]
    places = {id(node): _text(outer) for outer in _statements(function) for node in ast.walk(outer)}
    strict = {id(node.value) for node in keywords if node.arg == "strict"}
    for node in (node for statement in function.body for node in ast.walk(statement)):
        for block in (getattr(node, field, None) for field in ("body", "orelse", "finalbody")):
            if isinstance(block, list):
                yield from _of_block(block)
        if isinstance(node, ast.Call):
            yield from _of_call(node)
        if isinstance(node, ast.If | ast.IfExp):
            yield from _of_test(node)
        if isinstance(node, ast.BoolOp):
            yield from _of_operands(node)
        if isinstance(node, ast.For | ast.comprehension):
            yield from _of_loop(node)
        if isinstance(node, ast.Constant) and id(node) not in strict:
            yield from _of_value(node, places[id(node)])


def _of_block(block: list[ast.stmt]) -> Iterator[Change]:
    for at, statement in enumerate(block):
        text = _text(statement)
        if _is_prose(statement):
            continue
        if isinstance(statement, ast.Expr | ast.AugAssign | ast.Assign | ast.Continue | ast.Raise):
            yield "dropStatement", f"without `{text}`", *_setting(block, at, ast.Pass())
        if at + 1 < len(block) and _acts(statement) and _acts(block[at + 1]):
            swapped = [block[at + 1], statement]
            what = f"`{_text(block[at + 1])}` before `{text}`"
            yield "swapStatements", what, *_setting(block, slice(at, at + 2), swapped)


def _of_call(call: ast.Call) -> Iterator[Change]:
    """Another stream is given to, or asked for, what orders streams."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in STREAM_CALLS:
        return
    if call.args and "current_stream" in _text(call.args[0]):
        return  # A process has one device.
    for other in ("self._compute", "torch.cuda.current_stream()"):
        node = ast.parse(other, mode="eval").body
        what = f"`{_text(call)}` with {other}"
        if call.args and call.func.attr != "wait_event":
            yield "otherStream", what, *_setting(call.args, 0, node)
        if call.func.attr.startswith("wait"):
            yield "otherStream", f"{what} waiting", *_attribute(call.func, "value", node)


def _of_test(node: ast.If | ast.IfExp) -> Iterator[Change]:
    for value in (True, False):
        what = f"`{_text(node.test)}` as {value}"
        yield "dropCondition", what, *_attribute(node, "test", ast.Constant(value))


def _of_operands(node: ast.BoolOp) -> Iterator[Change]:
    for operand in node.values:
        left = [value for value in node.values if value is not operand]
        what = f"`{_text(node)}` without `{_text(operand)}`"
        yield "dropCondition", what, *_attribute(node, "values", left if len(left) > 1 else [*left, left[0]])


def _of_loop(node: ast.For | ast.comprehension) -> Iterator[Change]:
    text = _text(node.iter)
    for part in ("[:-1]", "[1:]", "[-1:]", "[:0]"):
        fewer = ast.parse(f"list({text}){part}", mode="eval").body
        yield "fewer", f"`{text}`{part}", *_attribute(node, "iter", fewer)
    tests: list[ast.expr] = getattr(node, "ifs", [])
    for at, test in enumerate(tests):
        yield "dropCondition", f"without `if {_text(test)}`", *_setting(tests, at, ast.Constant(True))


def _of_value(node: ast.Constant, place: str) -> Iterator[Change]:
    if isinstance(node.value, bool):
        yield (
            "otherValue",
            f"`{place}` with {not node.value} for {node.value}",
            *_attribute(node, "value", not node.value),
        )
    elif isinstance(node.value, int):
        yield (
            "otherValue",
            f"`{place}` with {node.value + 1} for {node.value}",
            *_attribute(node, "value", node.value + 1),
        )


def _statements(function: ast.FunctionDef) -> Iterator[ast.stmt]:
    """Inner ones after the outer."""
    return (node for node in ast.walk(function) if isinstance(node, ast.stmt) and node is not function)


def _setting(items: Any, at: int | slice, value: object) -> tuple[Callable[[], None], Callable[[], None]]:
    before = items[at]
    return lambda: items.__setitem__(at, value), lambda: items.__setitem__(at, before)


def _attribute(node: ast.AST, name: str, value: object) -> tuple[Callable[[], None], Callable[[], None]]:
    before = getattr(node, name)
    return lambda: setattr(node, name, value), lambda: setattr(node, name, before)


def _is_prose(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _acts(statement: ast.stmt) -> bool:
    """Whether a stream or a transfer notices when it is done."""
    return re.search(ACTS, ast.unparse(statement)) is not None


def _text(node: ast.AST) -> str:
    return ast.unparse(node).partition("\n")[0]
