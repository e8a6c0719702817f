"""Pages that are made from the code are fresh, and links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

from tests.support.worker_process import ROOT

PAGES = runpy.run_path(str(ROOT / "docs/generate.py"))["PAGES"]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "tests/README.md",
    *(ROOT / "docs").rglob("*.md"),
]
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


@pytest.mark.parametrize("page", [ROOT / "docs/development.md"], ids=["development.md"])
def test_paths_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"`((?:eshop|gateway|tests|docker|docs)/[\w./-]+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("record", sorted((ROOT / "docs/adr").glob("0*.md")), ids=lambda path: path.stem)
def test_decision_record_has_a_status_and_a_date_and_is_in_the_index(record: Path) -> None:
    number, title = re.match(r"# (\d+)\. (.+)", record.read_text()).groups()  # type: ignore[union-attr]
    (status,) = re.findall(
        r"^Status: (accepted, \d{4}-\d\d-\d\d|replaced by .+)\.$", record.read_text(), re.MULTILINE
    )
    assert int(record.name[:4]) == int(number)
    index = (ROOT / "docs/adr/README.md").read_text()
    assert f"| {number} | [{title}]({record.name}) | {status} |" in index
