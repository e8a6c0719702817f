"""What the README shows is what happens."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from eshop.settings import Settings
from tests.support.builders import new_id
from tests.support.shop_process import Shop

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SNIPPETS = dict(re.findall(r"<!-- tested -->\n```(\w+)\n(.*?)```", README, re.DOTALL))
SECONDS_MAX = 60


def run(shop: Shop, language: str, user_id: str) -> str:
    """Run a snippet of the README as a user of the test's own, and return what it prints."""
    snippet = SNIPPETS[language].replace("http://127.0.0.1:8000", shop.gateways()[0])
    snippet = re.sub(r"(X-User-Id\W+)alice", rf"\g<1>{user_id}", snippet)
    command = {"sh": ["sh", "-euc"], "python": [sys.executable, "-W", "error", "-c"]}[language]
    return subprocess.run(
        [*command, snippet], check=True, capture_output=True, text=True, timeout=SECONDS_MAX
    ).stdout


def test_snippets_do_what_the_readme_says(shop: Shop) -> None:
    user_id = f"reader-{new_id()}"
    opened, filled, placed, refused, listed, balance = run(shop, "sh", user_id).splitlines()
    assert opened == '{"balance_minor":0,"currency":"USD","version":1}'
    assert filled == '{"balance_minor":1000,"currency":"USD","version":2}'
    assert '"status":"NEW"' in placed
    assert '"reason":"insufficient_funds"' in refused
    assert ('"status":"FINISHED"' in listed, '"status":"CANCELLED"' in listed) == (True, True)
    assert balance == '{"balance_minor":300,"currency":"USD","version":3}'
    hello, *_, last = run(shop, "python", user_id).splitlines()
    assert "'type': 'hello'" in hello
    assert "'status': 'FINISHED'" in last


@pytest.mark.parametrize(
    "path",
    sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)|`((?:tests|eshop|docs|gateway)/[\w/.-]+)`", README))),
)
def test_every_path_in_the_readme_exists(path: tuple[str, str]) -> None:
    assert (ROOT / (path[0] or path[1])).exists()


def test_every_setting_in_the_readme_exists() -> None:
    known = {f"ESHOP_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"ESHOP_[A-Z_]+", README)) <= known
