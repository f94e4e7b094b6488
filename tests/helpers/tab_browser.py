"""A headless Chromium that sees this machine only."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")


def missing_browser() -> str:
    """Why no browser can be driven; empty if one can."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed, so the tab is not tried in a browser"
    return ""


@contextmanager
def browser(width: int = 1280, height: int = 1000) -> Iterator[webdriver.Chrome]:
    """A browser with its window; closed afterwards."""
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--window-size={width},{height}", "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(str(shutil.which("chromedriver"))))
    try:
        yield driver
    finally:
        driver.quit()


def resize(driver: webdriver.Chrome, width: int, height: int, *, phone: bool = False) -> None:
    """Give the page exactly this size; a window cannot be as narrow as a phone."""
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone,
    })


def wait_until(
    driver: webdriver.Chrome, condition: Callable[[], T], seconds: float = 20, what: str = ""
) -> T:
    """The first value of the condition that counts as true."""
    def ask(_: Any) -> T:
        return condition()

    waiting = WebDriverWait(
        driver, seconds, 0.1, ignored_exceptions=[StaleElementReferenceException]
    )
    return waiting.until(ask, what)


def screenshot(driver: webdriver.Chrome, path: Path, *, whole: bool = True) -> None:
    """A picture of the page, all of it or what is seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not whole:
        driver.save_screenshot(str(path))
        return
    height = driver.execute_script("return document.documentElement.scrollHeight")
    width = driver.execute_script("return window.innerWidth")
    resize(driver, int(width), int(height), phone=width < 500)
    driver.save_screenshot(str(path))
