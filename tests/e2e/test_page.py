"""The gateway's page, in a real browser."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.support.builders import new_id
from tests.support.shop_process import Shop

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Nothing is fetched from anywhere but the shop.
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]


@pytest.fixture
def page(shop: Shop) -> Iterator[Page]:
    """The first gateway's page, as nobody yet; fails on an error in its console."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda line: problems.append(line.text) if "Content Security" in line.text else None
        )
        page.goto(shop.gateways()[0])
        yield page
        browser.close()
    assert problems == []


def sign_in_with_an_account(page: Page) -> None:
    """Be a user nobody has seen before, and open an account."""
    page.get_by_label("User").fill(f"browser-{new_id()}")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#state")).to_contain_text("connected as")
    page.get_by_role("button", name="Open account").click()
    expect(page.locator("#balance")).to_have_text("0 USD")


def test_shopper_sees_the_order_finish_without_reloading(page: Page) -> None:
    expect(page.get_by_role("alert")).to_contain_text("nobody checks it")
    sign_in_with_an_account(page)
    page.get_by_role("button", name="Top up").click()
    expect(page.locator("#balance")).to_have_text("10000 USD")
    page.get_by_role("button", name="Place order").click()
    row = page.locator("#orders tr")
    expect(row).to_contain_text("FINISHED")
    expect(page.locator("#balance")).to_have_text("7500 USD")
    row.get_by_role("button", name="Cancel").click()
    expect(row).to_contain_text("CANCELLED")
    expect(page.locator("#balance")).to_have_text("10000 USD")
    legs = page.locator("#statement tr")
    expect(legs).to_have_count(3)
    expect(legs.nth(0)).to_contain_text("refund")
    expect(legs.nth(1)).to_contain_text("-2500")
    expect(legs.nth(2)).to_contain_text("top_up")


def test_shopper_closes_an_empty_account_and_opens_it_again(page: Page) -> None:
    sign_in_with_an_account(page)
    page.get_by_role("button", name="Close account").click()
    expect(page.locator("#message")).to_have_text("Account closed.")
    expect(page.locator("#balance")).to_have_text("no account")
    page.get_by_role("button", name="Open account").click()
    expect(page.locator("#balance")).to_have_text("0 USD")
    page.get_by_role("button", name="Top up").click()
    expect(page.locator("#balance")).to_have_text("10000 USD")
    page.get_by_role("button", name="Close account").click()
    expect(page.locator("#message")).to_contain_text("account-not-empty")
