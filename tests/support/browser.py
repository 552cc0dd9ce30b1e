"""A headless Chromium that opens reports."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)

CANVASES = """
const counts = {};
for (const [id, chart] of Object.entries(window.blasterCharts)) {
  const canvas = document.querySelector(`#chart-${id} canvas`);
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let drawn = 0;
  for (let i = 3; i < pixels.length; i += 4) drawn += pixels[i] > 0;
  counts[id] = [drawn, canvas.clientWidth];
}
return counts;
"""

SERIES = """
const found = {};
for (const [id, chart] of Object.entries(window.blasterCharts))
  found[id] = Object.fromEntries(chart.getOption().series.map((s) => [s.name, s.data]));
return found;
"""


class Browser:
    """A driver, and what the tests ask of it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(
        self, page: Path, *, width: int = 1280, scheme: str = "light", mobile: bool = False
    ) -> None:
        """Opens a file at this width and in this colour scheme."""
        metrics = {"width": width, "height": 2000, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.get(page.as_uri())

    def run(self, script: str) -> Any:
        """Run the script in the page and return its result."""
        return self.driver.execute_script(script)  # type: ignore[no-untyped-call]

    def console_messages(self) -> list[str]:
        """The console's messages since it was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@contextmanager
def opened(binaries: tuple[str, str], profile: Path) -> Iterator[Browser]:
    """A Chromium with a fresh profile, ended with the context."""
    options = webdriver.ChromeOptions()
    options.binary_location = binaries[0]
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(binaries[1]))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
