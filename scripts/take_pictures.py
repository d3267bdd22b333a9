"""Take the README's pictures of the page of `speech serve` and of a report, in Chromium.

    python scripts/take_pictures.py [--manifest data/sample/manifest.jsonl] [--output docs/images]

Needs chromium, chromedriver and selenium. The page shows some sentences of data/sample, which is
synthetic and free to publish, joined to one recording; the report is that of `speech evaluate` on
the manifest, with everything but the error rates, the speakers and the worst utterance hidden.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from command import run_command
from PIL import Image
from processes import REPOSITORY
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from speech.audio import load_audio
from speech.errors import SpeechError
from speech.manifest import read_manifest

SAMPLE = REPOSITORY / "data" / "sample"
SENTENCES = ("01-flite-slt.flac", "02-flite-rms.flac", "05-flite-slt.flac", "10-flite-awb.flac")
SAMPLE_RATE = 16000
PAUSE_SECONDS = 0.4
WORD_SHOWN = 6  # the one that has been clicked
PATIENCE_SECONDS = 120.0
LARGEST_BYTES = 200_000
# Below the figures only the table by speaker, of the worst utterances only the first.
ONLY_PARTS = """
    document.body.insertAdjacentHTML("beforeend", `<style>
        nav, .skip, #words, #characters, #confidence, #all-utterances, #run, footer,
        .figure.broad ~ .figure.broad { display: none !important }</style>`);
    for (const table of document.querySelectorAll("#tables .card"))
        if (!table.querySelector("th").textContent.startsWith("Speaker")) table.remove();
    for (const utterance of [...document.querySelectorAll("article")].slice(1)) utterance.remove();
"""


def write_reading(path: Path) -> None:
    """Write some sentences of the sample, a pause behind each."""
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    parts = [load_audio(SAMPLE / "audio" / name, SAMPLE_RATE).samples for name in SENTENCES]
    joined = np.concatenate([piece for part in parts for piece in (part, pause)])
    soundfile.write(path, joined, SAMPLE_RATE, subtype="PCM_16")


@contextmanager
def serving() -> Iterator[str]:
    """Run `speech serve` on a free port; yield its address."""
    command = [sys.executable, "-m", "speech", "serve", "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            yield _first_address(server)
        finally:
            server.terminate()


def _first_address(server: subprocess.Popen[str]) -> str:
    assert server.stderr is not None
    for line in server.stderr:
        if " at http://" in line:
            return line.split()[-1]
    raise SpeechError("the server did not start")


@contextmanager
def chromium() -> Iterator[Any]:
    options = Options()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def show(driver: Any, address: str, width: int, scale: float, scheme: str) -> None:
    """Open a page in a window so wide, in light or dark colours."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": width, "height": 900, "deviceScaleFactor": scale, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get(address)


def recognise(driver: Any, recording: Path) -> None:
    """Upload a recording, wait for its words, and click one."""
    wait = WebDriverWait(driver, PATIENCE_SECONDS)
    wait.until(lambda _: driver.find_element(By.ID, "model").text != "connecting")
    driver.find_element(By.ID, "file").send_keys(str(recording))
    wait.until(lambda _: "recognised in" in driver.find_element(By.ID, "status").text)
    words = driver.find_elements(By.CSS_SELECTOR, "#transcript button")
    driver.execute_script("arguments[0].focus()", words[WORD_SHOWN])


def show_posteriors(driver: Any) -> None:
    driver.execute_script("document.getElementById('posteriors').open = true")
    letters = driver.find_element(By.ID, "letters")
    WebDriverWait(driver, PATIENCE_SECONDS).until(lambda _: letters.is_displayed())


def save(driver: Any, path: Path) -> None:
    """Write the whole page as a PNG of 256 colours, rare ones among them."""
    driver.execute_async_script("setTimeout(arguments[0], 1000)")  # slow colours and drawings
    size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
    shot = {"format": "png", "captureBeyondViewport": True, "clip": clip}
    taken = base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", shot)["data"])
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    picture.quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
    if path.stat().st_size > LARGEST_BYTES:
        raise SpeechError(f"{path} has {path.stat().st_size} bytes")
    print(path, path.stat().st_size, "bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, default=SAMPLE / "manifest.jsonl")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "docs" / "images")
    options = parser.parse_args()
    read_manifest(options.manifest)  # before the pictures that need none
    with tempfile.TemporaryDirectory() as directory:
        recording, report = Path(directory) / "reading.wav", Path(directory) / "report"
        write_reading(recording)
        with chromium() as driver, serving() as address:
            show(driver, address, 1000, 1.0, "light")
            recognise(driver, recording)
            show_posteriors(driver)
            save(driver, options.output / "serve.png")
            show(driver, address, 390, 1.5, "dark")
            recognise(driver, recording)
            save(driver, options.output / "serve-phone.png")
        command = [sys.executable, "-m", "speech", "evaluate", str(options.manifest)]
        subprocess.run([*command, "--report", str(report)], check=True, stdout=subprocess.DEVNULL,
                       env=os.environ | {"PYTHONPATH": str(REPOSITORY)})  # fmt: skip
        with chromium() as driver:
            show(driver, (report / "index.html").as_uri(), 1160, 0.85, "light")
            driver.execute_script(ONLY_PARTS)
            save(driver, options.output / "report.png")


if __name__ == "__main__":
    run_command(main)
