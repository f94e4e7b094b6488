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
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")

QUICK = {
    "sampling_prompt": "a painting", "sampling_steps": 3, "sampling_resolution": 64,
    "keyframes_batch_size": 3, "guidance_optimization_iterations": 1,
}
"""Fields of a job that ends within seconds."""
FRAMES, CUT = 24, 12
"""Frames of the clip that all tests of the page open, and the first of its second shot."""


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


@contextmanager
def slow_uploads(driver: webdriver.Chrome, rate: int) -> Iterator[None]:
    """Let the page send no more than so many bytes a second."""
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1}
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**limits, "uploadThroughput": rate})
    try:
        yield
    finally:
        driver.execute_cdp_cmd(
            "Network.emulateNetworkConditions", {**limits, "uploadThroughput": -1})


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


class TabPage:
    """The tab as a person uses it."""

    def __init__(self, driver: webdriver.Chrome, address: str, theme: str = "light") -> None:
        self.driver = driver
        driver.get(f"{address}?__theme={theme}")
        self.until("window.fresco && document.querySelector('#fresco_root')?.dataset.fresco")

    def script(self, code: str, *values: Any) -> Any:
        """What a piece of JavaScript gives."""
        return self.driver.execute_script(code, *values)

    def until(self, code: str, seconds: float = 60) -> Any:
        """Wait until a JavaScript expression holds; what it gives."""
        return wait_until(self.driver, lambda: self.script(f"return {code}"), seconds, code)

    def element(self, selector: str) -> Any:
        """The one element of a selector."""
        return self.driver.find_element("css selector", selector)

    def press(self, selector: str) -> None:
        """Press a button where it is seen, once it can be pressed; the page may draw it anew."""
        def pressed() -> bool:
            element = self.element(selector)
            self.script("arguments[0].scrollIntoView({block: 'center'})", element)
            if not element.is_enabled():
                return False
            element.click()
            return True

        wait_until(self.driver, pressed, what=f"{selector} can be pressed")

    def upload(self, path: Path | str, field: str = "upload") -> None:
        """Choose a file; the box may be drawn anew after the one before."""
        def chosen() -> bool:
            self.element(f"#fresco_{field} input[type=file]").send_keys(str(path))
            return True

        wait_until(self.driver, chosen, what=f"a file can be chosen in {field}")

    def open_clip(self, path: Path) -> None:
        """Upload a video and wait for its keyframes."""
        self.upload(path)
        self.until("document.querySelector('#fresco_facts').textContent"
                   f".includes({path.name!r})")
        self.until("fresco.state().line.state === 'ready' && !fresco.state().line.reading")

    def choose(self, name: str, choice: str) -> None:
        """Choose in a dropdown of gradio by typing."""
        field = self.element(f"#fresco_{name} input")
        self.script("arguments[0].scrollIntoView({block: 'center'})", field)
        field.click()
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(choice, Keys.ENTER)

    def put(self, **values: object) -> None:
        """Type into fields of gradio, by their ids; what is folded away can be set too."""
        for name, value in values.items():
            self.script(
                """for (const field of document.querySelectorAll(
                    `#fresco_${arguments[0]} input:not([type=range]),
                     #fresco_${arguments[0]} textarea`)) {
                    const kind = field.tagName === 'TEXTAREA' ? HTMLTextAreaElement
                        : HTMLInputElement;
                    Object.getOwnPropertyDescriptor(kind.prototype, 'value').set.call(
                        field, arguments[1]);
                    field.dispatchEvent(new Event('input', {bubbles: true}));
                    field.dispatchEvent(new Event('blur', {bubbles: true}));
                }""", name, str(value),
            )

    def text(self, identity: str) -> str:
        """What a text field of gradio holds."""
        return self.script(
            "return document.querySelector(`#fresco_${arguments[0]} textarea`).value", identity
        )

    @property
    def keys(self) -> list[int]:
        """Keyframes on the timeline."""
        return self.script("return fresco.state().line.keys")

    def job(self) -> dict[str, Any] | None:
        """The selected job."""
        return self.script(
            "const work = fresco.state().work;"
            "return work.jobs.find((job) => job.id === work.chosen) || null"
        )

    def job_until(self, *states: str, seconds: float = 120) -> dict[str, Any]:
        """The selected job once it is in one of the states."""
        def ended() -> dict[str, Any] | None:
            job = self.job()
            return job if job and job["state"] in states else None

        found = wait_until(self.driver, ended, seconds, f"job in {states}")
        assert found is not None
        return found

    def complaints(self) -> list[str]:
        """Errors of the page's own code; fonts and gradio's outer addresses are not there."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[assignment]
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"
                and not any(name in entry["message"] for name in (
                    "googleapis", "cdnjs", "gstatic", "manifest.json", "favicon"))]
