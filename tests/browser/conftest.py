"""A headless Chromium, driven by Playwright: one browser for all tests, a new page and profile for each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

# Milliseconds of one action or wait. Less than the tests' own limit: then Playwright says what it waited for.
_LIMIT = 60_000


# Not for the session: until Playwright ends, an event loop is running in this thread, and a later test
# could start none.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The Chromium that the system has."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert program, "there is no Chromium: `.ci/install-packages develop` installs it"
    expect.set_options(timeout=_LIMIT)
    # Chromium's sandbox does not work for root, and CI runs as root.
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=["--no-sandbox"]) as browser,
    ):
        yield browser


@pytest.fixture
def screen() -> dict[str, Any]:
    """The screen size and colour scheme; a test can parametrize it."""
    return {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture
def said() -> list[str]:
    """What the page wrote to its console, its errors, and what its policy refused."""
    return []


@pytest.fixture
def asked() -> list[str]:
    """The addresses that the page loaded, or tried to."""
    return []


@pytest.fixture
def page(
    browser: Browser,
    screen: dict[str, Any],
    said: list[str],
    asked: list[str],
    request: pytest.FixtureRequest,
) -> Iterator[Page]:
    """A page, which at the end has run nothing but the report's script and loaded nothing but the report."""
    failed = request.session.testsfailed
    with browser.new_context(**screen) as context:
        context.set_default_timeout(_LIMIT)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        # Playwright's event does not report `data:` addresses.
        network = context.new_cdp_session(page)
        network.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["url"]))
        network.send("Network.enable")
        yield page
        # If the page's script never ends, the test has failed by its time limit, and the page does not
        # answer.
        if request.session.testsfailed > failed:
            return
        assert page.title().startswith("quizmatrix ")
        assert said == []
        assert {address.partition(":")[0] for address in asked} == {"file"}
        assert len(set(asked)) == 1
