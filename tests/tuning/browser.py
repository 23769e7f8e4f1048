"""A headless Chromium that is told by DevTools what it asked the network for and what went wrong."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip
_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_DRIVER = shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(
    _CHROMIUM is None or _DRIVER is None,
    reason="needs a browser: apt-get install --no-install-recommends chromium chromium-driver",
)


@contextmanager
def open_browser(profile: Path) -> Iterator[Chrome]:
    """Start a browser with an empty profile folder; it keeps a log of requests and of the console."""
    options = ChromeOptions()
    options.binary_location = str(_CHROMIUM)
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = Chrome(options=options, service=Service(str(_DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def requests(driver: Chrome) -> list[str]:
    """The addresses asked for since the last call, without what a data URI holds."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]  # type: ignore[no-untyped-call]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"].split(";")[0] for params in sent]


def complaints(driver: Chrome) -> list[dict[str, Any]]:
    """What the console holds since the last call: errors of scripts, warnings, violations of the content policy."""
    entries: list[dict[str, Any]] = driver.get_log("browser")  # type: ignore[no-untyped-call]
    return entries


def set_scheme(driver: Chrome, scheme: str) -> None:
    """Let pages see that the user prefers ``light`` or ``dark``."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})  # type: ignore[no-untyped-call]
