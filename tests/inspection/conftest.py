"""The browser in which the pages are looked at."""

import shutil

import pytest

try:
    from playwright.sync_api import sync_playwright
except ModuleNotFoundError:
    sync_playwright = None

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def browser():
    """A browser without a window."""
    if sync_playwright is None:
        pytest.skip("playwright is not installed (pip install -e '.[test]')")
    if BROWSER is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=options)
        yield opened
        opened.close()
