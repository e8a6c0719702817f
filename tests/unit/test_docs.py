"""Pages that are made from the code are fresh, and links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

from eshop.contracts.services import SERVICES
from tests.support.worker_process import ROOT

PAGES = runpy.run_path(str(ROOT / "docs/generate.py"))["PAGES"]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "tests/README.md",
    *(ROOT / "docs").rglob("*.md"),
]
DEVELOPMENT = (ROOT / "docs/development.md").read_text()
#: Without the drawing of the map.
PROSE = re.sub(r"^```.*?^```", "", DEVELOPMENT, flags=re.MULTILINE | re.DOTALL)
SOURCES = [path for room in ("eshop", "gateway", "tests") for path in (ROOT / room).rglob("*.py")]


@pytest.mark.parametrize("name", PAGES)
def test_page_is_fresh(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "run `make docs`"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_decision_records_that_the_code_names_are_there() -> None:
    named = {
        name for path in SOURCES for name in re.findall(r"docs/adr/[0-9a-z-]+(?:\.md)?", path.read_text())
    }
    assert len(named) >= 10
    assert [name for name in named if not list(ROOT.glob(f"{name.removesuffix('.md')}*.md"))] == []


def test_paths_that_the_development_page_names_are_there() -> None:
    """NAME stands for a new service. A path without a package is below the package of its sentence."""
    bases = (ROOT, ROOT / "eshop", ROOT / "gateway")
    named = re.findall(r"`([\w.-]*/[\w./-]*|[\w-]+\.(?:py|md))`", PROSE)
    assert len(named) >= 50
    missing = [name for name in named if not any((base / name).exists() for base in bases)]
    assert [name for name in missing if "NAME" not in name] == []


def test_functions_and_classes_that_the_development_page_names_are_there() -> None:
    code = "\n".join(path.read_text() for path in SOURCES)
    named = set(re.findall(r"`([A-Z]\w+|[a-z]+(?:_[a-z]+)+)(?:\(\))?`", PROSE))
    assert len(named) >= 10
    assert [name for name in named if not re.search(rf"\b{name}\b", code) and "NAME" not in name] == []


@pytest.mark.parametrize("package", ["eshop", "gateway"])
def test_map_has_every_room(package: str) -> None:
    (drawn,) = re.findall(rf"^{package}/\n((?: .*\n)+)", DEVELOPMENT, re.MULTILINE)
    rooms = {path.name for path in (ROOT / package).iterdir() if path.is_dir() and path.name[0] not in "_."}
    modules = {path for path in (ROOT / package).glob("*.py") if not path.name.startswith("_")}
    named = {"NAME.py" if path.stem in SERVICES else path.name for path in modules}
    assert rooms | named <= {name.rstrip("/") for name in re.findall(r"\w+(?:\.py|/)", drawn)}


@pytest.mark.parametrize("record", sorted((ROOT / "docs/adr").glob("0*.md")), ids=lambda path: path.stem)
def test_decision_record_has_a_status_and_a_date_and_is_in_the_index(record: Path) -> None:
    number, title = re.match(r"# (\d+)\. (.+)", record.read_text()).groups()  # type: ignore[union-attr]
    (status,) = re.findall(
        r"^Status: (accepted, \d{4}-\d\d-\d\d|replaced by .+)\.$", record.read_text(), re.MULTILINE
    )
    assert int(record.name[:4]) == int(number)
    index = (ROOT / "docs/adr/README.md").read_text()
    assert f"| {number} | [{title}]({record.name}) | {status} |" in index
