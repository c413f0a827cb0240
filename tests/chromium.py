"""Pages in a headless Chromium, for tests: Playwright on the system's browser, or on the one that it downloaded."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Opened(NamedTuple):
    """A page with what it reported since it was opened.

    Attributes:
        page: Playwright's.
        problems: Script errors, and what the browser logged as an error or a warning, such as a breach of the page's
            Content-Security-Policy.
        requests: Addresses of all that the page asked for, itself included.
    """

    page: Page
    problems: list[str]
    requests: list[str]


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser that $CHROME names, else Playwright's own, else the system's; skips where there is none."""
    with sync_playwright() as playwright:
        programs = (os.environ.get("CHROME", ""), playwright.chromium.executable_path, *NAMES)
        program = next(filter(None, map(shutil.which, programs)), None)
        if program is None:
            pytest.skip(f"no Chromium ($CHROME, {', '.join(NAMES)}): `make browser` gets one")
        with playwright.chromium.launch(executable_path=program) as launched:
            yield launched


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Loads a file at a width in CSS pixels, in light or dark, on a screen or for print."""
    with ExitStack() as opened:

        def open_page(
            path: Path, *, width: int = 1280, dark: bool = False, media: Literal["screen", "print"] = "screen"
        ) -> Opened:
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                is_mobile=width < 700,
                color_scheme="dark" if dark else "light",
            )
            opened.callback(context.close)
            found = Opened(context.new_page(), [], [])

            def log(message: ConsoleMessage) -> None:
                if message.type in ("error", "warning", "assert"):
                    found.problems.append(message.text)

            found.page.on("console", log)
            found.page.on("pageerror", lambda error: found.problems.append(str(error)))
            found.page.on("request", lambda request: found.requests.append(request.url))
            found.page.emulate_media(media=media)
            found.page.goto(path.resolve().as_uri())
            return found

        yield open_page
