"""A Chromium that opens the dashboard, and notes everything that goes wrong; what the page reads."""

import base64
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from synthetic_store import write_store

from tracker.views.encode import LEVELS, MISSING

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip
DRAWN = "html[data-ready]"
PATIENCE = 30_000
"""Milliseconds that a busy machine is given; nothing waits that long where all is well."""
expect.set_options(timeout=PATIENCE)
browsing = pytest.mark.skipif(shutil.which(CHROMIUM) is None, reason=f"no Chromium at {CHROMIUM}")


def shared_store(factory: pytest.TempPathFactory, seeds: int = 1) -> Path:
    """The small synthetic store, written once for all tests of this process, which only read it."""
    folder = factory.getbasetemp() / f"shared-store-{seeds}"
    return folder if folder.is_dir() else write_store(folder, seeds=seeds)


def unpacked(text: str, shape: tuple[int, ...]) -> np.ndarray:
    """What the page reads from ``pack``: codes of ``shape`` (T, ...)."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.cumsum(raw.reshape(shape[0], -1), axis=0, dtype=np.uint8).reshape(shape)


def restored(codes: np.ndarray, low: float, high: float) -> np.ndarray:
    """The values that codes stand for, as the page reads them; NaN where there is none."""
    values = low + codes.astype(float) / LEVELS * (high - low or 1.0)
    return np.where(codes == MISSING, np.nan, values)


@dataclass
class Visit:
    """One page that a person has open."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: Path, link: str = "") -> None:
        """Loads the file anew, at a link."""
        self.page.goto("about:blank")
        self.page.goto(path.as_uri() + link)
        self.page.wait_for_selector(DRAWN)

    def follow(self, link: str = "") -> None:
        """Follows a link within the page that is open; without one, back to the first view."""
        go = "link => { delete document.documentElement.dataset.ready; history.replaceState(null, '', link);"
        self.page.evaluate(f"{go} dispatchEvent(new HashChangeEvent('hashchange')); }}", link or "#")
        self.page.wait_for_selector(DRAWN)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def until(self, selector: str, text: str | re.Pattern[str]) -> None:
        expect(self.page.locator(selector)).to_have_text(text)

    def chosen(self, selector: str) -> str:
        return self.page.locator(selector).input_value()

    def plotted(self, name: str) -> Any:
        """The traces that a plot holds, once whatever waits for its turn is drawn."""
        self.page.wait_for_selector(DRAWN)
        return self.page.evaluate(
            "name => JSON.parse(JSON.stringify(document.getElementById(name).data))", name
        )

    def lines(self, name: str) -> dict[str, Any]:
        """Of these the curves of runs, by run."""
        return {trace["meta"]: trace for trace in self.plotted(name) if trace.get("meta")}

    def link(self, part: str) -> str:
        """The address's hash, once it says ``part``."""
        self.page.wait_for_url(re.compile(re.escape(part)))
        return "#" + self.page.url.split("#", 1)[1]

    def outside(self) -> list[str]:
        """Requests that left this machine's files."""
        return [url for url in self.requests if not url.startswith(("file://", "data:", "blob:", "about:"))]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The installed browser, closed at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Browser, **options: Any) -> Iterator[Visit]:
    """A new page whose complaints and requests are noted."""
    page = browser.new_page(
        **({"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | options)
    )
    page.set_default_timeout(2 * PATIENCE)
    visit = Visit(page)
    page.on("console", lambda message: visit.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on("dialog", lambda dialog: (visit.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: visit.requests.append(request.url))
    yield visit
    page.close()
