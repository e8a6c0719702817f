"""The house rules that no linter knows."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_MAX = 70
#: Words that the glossary replaces (docs/glossary.md, last table). Not yet: "question", "seq", "ending".
BANNED = re.compile(
    r"\b(doorbells?|rings?|ringing|lanes?|trails?|sendings?|standings?|sets? aside|setting aside|anew|of ours"
    r"|stands? on|so many|so long|asked about|asks about|asking again|told again|answered again)\b",
    re.IGNORECASE,
)
SOURCES = sorted(
    path
    for package in ("eshop", "gateway")
    for path in (ROOT / package).rglob("*.py")
    if "_pb2" not in path.name
)


def trees(room: str = "") -> Iterator[tuple[str, ast.Module]]:
    """Yield every source file of a room with its syntax tree."""
    for path in SOURCES:
        name = str(path.relative_to(ROOT))
        if name.startswith(room):
            yield name, ast.parse(path.read_text())


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{name}:{node.lineno} {node.name}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LINES_MAX
    ]
    assert long == []


def test_money_is_never_a_float() -> None:
    floats = [
        f"{name}:{node.lineno}"
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign | ast.arg)
        and (target := ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else node.arg)
        and re.search(r"minor|amount|balance", target)
        and node.annotation is not None
        and re.search(r"\bfloat\b|Decimal", ast.unparse(node.annotation))
    ]
    assert floats == []


def test_domain_has_no_clock_no_chance_no_environment_and_waits_for_nothing() -> None:
    impure = re.compile(r"\b(now|utcnow|uuid4|uuid7|random|environ|getenv|time)\b")
    found = [
        f"{name}:{node.lineno}"
        for name, tree in trees("eshop/domain")
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and impure.fullmatch(node.attr))
        or (isinstance(node, ast.Name) and impure.fullmatch(node.id))
        or isinstance(node, ast.Await | ast.AsyncFunctionDef)
    ]
    assert found == []


def test_nobody_but_the_relay_sends_to_kafka() -> None:
    senders = re.compile(r"send|send_and_wait|send_batch|send_soon")
    found = {
        name
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and senders.fullmatch(node.func.attr)
        and re.search(r"producer|topic|app", ast.unparse(node.func.value))
    }
    assert found == {"eshop/relay/publisher.py"}


def test_whatever_is_cancelled_is_awaited_with_a_bound() -> None:
    """On Python 3.11 ``wait_for`` swallows a cancellation that arrives when its future is done."""
    calls = {
        (name, node.func.attr)
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert {name for name, method in calls if method == "cancel"} == {"eshop/cancellation.py"}
    assert {name for name, method in calls if method == "wait_for"} == set()


def test_only_settings_read_the_environment() -> None:
    found = {
        name
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv")
    }
    allowed = ("eshop/environment.py", "eshop/cluster/", "eshop/cli/")
    assert not {name for name in found if not name.startswith(allowed)}


@pytest.mark.parametrize("name", ["eshop", "gateway"])
def test_every_module_says_its_one_job(name: str) -> None:
    assert [path for path, tree in trees(name) if not ast.get_docstring(tree)] == []


def test_rooms_import_only_what_the_floor_plan_allows() -> None:
    """The contracts are in setup.cfg."""
    linter = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert linter is not None
    checked = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_words_that_the_glossary_replaces_are_not_used() -> None:
    pages = [path for path in (*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")) if path.stem != "glossary"]
    modules = [*SOURCES, *(path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))]
    found = [
        f"{path.relative_to(ROOT)}:{number} {word[0]}"
        for path in (*modules, *pages)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (word := BANNED.search(line))
    ]
    assert found == []
