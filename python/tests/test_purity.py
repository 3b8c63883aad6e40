"""What sources may not do, read off them.

Handlers: loops over chunks, policies, values. Measurements: the plan. Any file: go on for too long.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import fpdt
import fpdt.measure.memory
import fpdt.measure.timing
import fpdt.ops
from fpdt.plan.op_kinds import OP_KINDS

HEADER_SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "planHeader.json").read_text())
POLICY_WORDS = {"policy", "strategy", *HEADER_SCHEMA["properties"]["strategy"]["properties"]["policy"]["enum"]}
FORBIDDEN_ATTRIBUTES = {"cuda", "item", "tolist", "numpy", "cpu", "data_ptr", "synchronize"}
CHUNK_WORDS = re.compile(r"chunk|tile|segment|^tokens$|^kv$|^range$")
TILES = "tiles.py"
"""The one file whose loop goes through pieces of rows: how many, an op's attribute says."""
MAX_LINES = 300
ALL_SOURCES = sorted(Path(inspect.getfile(fpdt)).parent.rglob("*.py"))
SOURCES = sorted(path for path in Path(inspect.getfile(fpdt.ops)).parent.glob("*.py") if path.name != TILES)


def violations(source: str) -> list[str]:
    tree = ast.parse(source)
    return [f"line {node.lineno}: {text}" for node, text in (*_loops(tree), *_names(tree), *_switches(tree))]


Found = Iterator[tuple[ast.expr | ast.stmt, str]]


def _loops(tree: ast.AST) -> Found:
    """Handlers may go through their views, dtypes or ranks, but never through pieces of a sequence."""
    for node in ast.walk(tree):
        if isinstance(node, ast.While):
            yield node, "while"
        elif isinstance(node, ast.For):
            yield from _iterated(node.iter)
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            for generator in node.generators:
                yield from _iterated(generator.iter)


def _iterated(expression: ast.expr) -> Found:
    for node in ast.walk(expression):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if CHUNK_WORDS.search(name.lower()):
            yield expression, f"a loop over {ast.unparse(expression)}"


def _names(tree: ast.AST) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id.lower() in POLICY_WORDS:
            yield node, f"the name {node.id}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.lower() in POLICY_WORDS:
            yield node, f"the text {node.value!r}"
        elif isinstance(node, ast.Attribute) and node.attr.lower() in POLICY_WORDS | FORBIDDEN_ATTRIBUTES:
            yield node, f"the attribute .{node.attr}"


def _switches(tree: ast.AST) -> Found:
    """What an op does follows from its kind and views; a test of another field, or of a kind's name, is a policy."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Match):
            yield node, "match"
        elif isinstance(node, ast.If | ast.IfExp) and _looks_at_op(node.test):
            yield node, f"if {ast.unparse(node.test)}"


def _looks_at_op(test: ast.expr) -> bool:
    return any(_is_op_field(node) or _is_kind(node) for node in ast.walk(test))


def _is_op_field(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node.value).rpartition(".")[2] == "op"


def _is_kind(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value in OP_KINDS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_handlers_keep_to_the_contract(path: Path) -> None:
    assert violations(path.read_text()) == []


def test_all_handlers_are_looked_at() -> None:
    assert {inspect.getsourcefile(inspect.unwrap(handler)) for handler in fpdt.ops.HANDLERS.values()} <= {
        str(path) for path in SOURCES
    }


@pytest.mark.parametrize(
    "line",
    [
        "for i in range(4): pass",
        "for chunk in ctx.chunks: pass",
        "for i, rows in enumerate(split(x, num_chunks)): pass",
        "sum(f(i) for i in range(ctx.op.tokens.start))",
        "[f(tile) for tile in x.tiles]",
        "for token in ctx.op.tokens: pass",
        "while start < end: start += 1",
        "if mode == 'fpdt': pass",
        "run(policy)",
        "ctx.plan.strategy",
        "if ctx.op.kind == 'attn': pass",
        "y = 1 if op.attribute.tiles else 2",
        "if kind == 'attnBwd': pass",
        "torch.cuda.synchronize()",
        "x.item()",
        "x.cpu()",
        "x.data_ptr()",
    ],
)
def test_what_is_forbidden_is_found(line: str) -> None:
    assert violations(f"def handler(ctx, op, x):\n    {line}\n") != []


def test_a_loop_over_views_is_not() -> None:
    assert violations("for read, write in zip(reads, writes, strict=True): write.copy_(read)") == []


def test_the_file_of_tiles_has_one_loop_over_them() -> None:
    source = (SOURCES[0].parent / TILES).read_text()
    assert {text.partition(": ")[2] for text in violations(source)} == {"a loop over range(tiles)"}


@pytest.mark.parametrize("module", [fpdt.measure.memory, fpdt.measure.timing])
def test_what_measures_cannot_see_the_plan(module: ModuleType) -> None:
    tree = ast.parse(inspect.getsource(module))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.startswith("fpdt.")} <= {"fpdt.run.runtime"}
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert {name for name in names if "plan" in name.lower() or "scratch" in name.lower()} == set()


def test_files_are_short() -> None:
    num_lines = {path: len(path.read_text().splitlines()) for path in ALL_SOURCES}
    assert set(SOURCES) < num_lines.keys()
    assert [str(path) for path, count in num_lines.items() if count > MAX_LINES] == []
