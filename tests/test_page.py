"""The page in a real Chromium: what is dropped or said on it, with mouse, keys and on a phone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import soundfile
from tiny import SAMPLE_RATE, save_tiny_model

pytest.importorskip("selenium.webdriver")
pytest.importorskip("fastapi")

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from serving import babble, running, tiny_app

from speech.decoder import GREEDY
from speech.http_guard import Access
from speech.transcribe import Recogniser
from speech.transcript import WRITERS, Transcript

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]

WORDY_SEED = 8  # of the weights: the model says spaces as well
SECONDS = 12.0
SPOKEN_SECONDS = 2.0  # in which random weights are sure to hear a word
LONG_SECONDS = 75.0  # more than the posteriors of one request
PATIENCE_SECONDS = 120.0
DESKTOP, PHONE = (1100, 850), (360, 640)
MIN_TOUCH_PIXELS = 34
MIN_CONTRAST = 4.5  # WCAG 2.1, 1.4.3
MAX_SHADE = 0.62  # in light colours
KEY = "open sesame"


WORD_BUTTONS = "[...document.querySelectorAll('#transcript button')]"


@dataclass(frozen=True)
class Page:
    """The page in a browser, and where its downloads go."""

    driver: Any
    address: str
    downloads: Path

    def find(self, name: str) -> Any:
        return self.driver.find_element(By.ID, name)

    def words(self) -> list[str]:
        script = f"return {WORD_BUTTONS}.map((button) => button.textContent)"
        return list(self.driver.execute_script(script))

    def wait(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, PATIENCE_SECONDS, 0.05).until(lambda _: condition())

    def upload(self, path: Path) -> None:
        self.find("file").send_keys(str(path))
        self.wait(lambda: "recognised in" in self.find("status").text)
        self.wait(lambda: self.find("sound").is_displayed())

    def is_playing(self) -> bool:
        return bool(self.find("play").get_attribute("aria-label") == "Pause")

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self) -> Any:
        return self.driver.switch_to.active_element

    def command(self, name: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(name, parameters)

    def resize(self, size: tuple[int, int], mobile: bool = False) -> None:
        width, height = size
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height,
                     deviceScaleFactor=2 if mobile else 1, mobile=mobile)  # fmt: skip
        self.command("Emulation.setTouchEmulationEnabled", enabled=mobile)

    def colour_scheme(self, scheme: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def settle_colours(self) -> None:
        """Wait for colours that change slowly."""
        script = """
            const [done] = arguments;
            requestAnimationFrame(() => {
                const changes = document.getAnimations().filter((a) => a instanceof CSSTransition);
                Promise.allSettled(changes.map((change) => change.finished)).then(() => done());
            });"""
        self.driver.execute_async_script(script)

    def colours_on(self, canvas: str) -> int:
        """How many colours a canvas shows once it is drawn."""
        script = """
            const [canvas, done] = arguments;
            requestAnimationFrame(() => requestAnimationFrame(() => {
                const { width, height } = canvas;
                const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
                done(new Set(new Uint32Array(data.buffer)).size);
            }));"""
        return int(self.driver.execute_async_script(script, self.find(canvas)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), WORDY_SEED)


def record(path: Path, seconds: float, rate: int = SAMPLE_RATE) -> Path:
    soundfile.write(path, babble(seconds, rate), rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("audio") / "two words.wav", SECONDS)


@pytest.fixture(scope="module")
def expected(model: Path, recording: Path) -> Transcript:
    transcript = Recogniser.load(model, threads=1, options=GREEDY).transcribe(recording)
    assert len(transcript.words) > 3
    return transcript


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    with running(tiny_app(model)) as (address, _):
        yield address


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    microphone = record(tmp_path_factory.mktemp("microphone") / "said.wav", 8.0, 48000)
    options = Options()
    options.binary_location = CHROMIUM
    for argument in (
        "headless=new", "no-sandbox", "disable-dev-shm-usage", "use-fake-ui-for-media-stream",
        "use-fake-device-for-media-stream", "disable-audio-output",  # played on time, to nowhere
        "autoplay-policy=no-user-gesture-required", f"use-file-for-fake-audio-capture={microphone}",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(PATIENCE_SECONDS)
    yield driver
    driver.quit()


@pytest.fixture
def page(driver: Any, address: str, tmp_path: Path) -> Iterator[Page]:
    """The page, freshly opened; afterwards nothing was asked of other hosts and nothing failed."""
    page = Page(driver, address, tmp_path)
    open_page(page)
    yield page
    assert_quiet(page)


def open_page(page: Page) -> None:
    page.driver.get("about:blank")
    for log in ("browser", "performance"):
        page.driver.get_log(log)  # forgets what was before
    page.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(page.downloads))
    page.resize(DESKTOP)
    page.colour_scheme("light")
    page.driver.get(page.address)
    page.wait(lambda: page.find("model").text == "tiny")


def assert_quiet(page: Page, *but: str) -> None:
    """No error in the console except those that hold one of some texts; no other host asked."""
    allowed = (*but, "willReadFrequently")  # a hint: the tests read canvases back
    errors = [entry["message"] for entry in page.driver.get_log("browser")]
    assert [error for error in errors if not any(text in error for text in allowed)] == []
    asked = requests(page.driver.get_log("performance"))
    assert len(asked) > 5
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(page.address).netloc}


def requests(entries: list[dict[str, Any]]) -> list[str]:
    """The addresses in a performance log, without those of data within the page."""
    urls = []
    for entry in entries:
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            urls.append(message["params"]["request"]["url"])
        elif message["method"] == "Network.webSocketCreated":
            urls.append(message["params"]["url"])
    return [url for url in urls if not url.startswith(("data:", "blob:", "about:"))]


# --- A recording ----------------------------------------------------------------------------------


def test_upload_shows_sound_and_words(page: Page, recording: Path, expected: Transcript) -> None:
    page.upload(recording)
    assert page.words() == expected.text.split()
    assert f"{len(expected.words)} words" in page.find("status").text
    assert page.find("name").text == recording.name
    assert page.find("clock").text == "0:00.0 / 0:12.0"
    assert page.colours_on("overview") > 2
    assert page.colours_on("wave") > 2
    assert page.colours_on("mel") > 50  # of a scale of 256


def test_shade_is_confidence(page: Page, recording: Path, expected: Transcript) -> None:
    page.upload(recording)
    script = f"return {WORD_BUTTONS}.map((button) => getComputedStyle(button).backgroundColor)"
    colours = page.driver.execute_script(script)
    shades = [float(re.findall(r"[\d.]+", colour)[3]) for colour in colours]
    doubts = [1 - word.confidence for word in expected.words]
    assert max(doubts) > 0.05
    assert shades == pytest.approx([MAX_SHADE * doubt for doubt in doubts], abs=0.01)


def test_dropped_file(page: Page, recording: Path, expected: Transcript) -> None:
    """A drop cannot come from outside the browser here, so the page makes one itself."""
    script = """
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(arguments[0])], "dropped.wav"));
        const event = new DragEvent("drop", { dataTransfer: data, bubbles: true });
        document.body.dispatchEvent(event);"""
    page.driver.execute_script(script, list(recording.read_bytes()))
    page.wait(lambda: "recognised in" in page.find("status").text)
    assert page.find("name").text == "dropped.wav"
    assert page.words() == expected.text.split()


def test_clicked_word_is_heard(page: Page, recording: Path, expected: Transcript) -> None:
    page.upload(recording)
    number = max(range(len(expected.words)), key=lambda n: expected.words[n].start)
    word = expected.words[number]
    button = page.driver.find_element(By.CSS_SELECTOR, f"#transcript [data-index='{number}']")
    button.click()
    assert word.word in page.find("word").text
    assert f"{round(100 * word.confidence)} % sure" in page.find("word").text
    page.wait(lambda: not page.is_playing())
    position = float(page.find("mel").get_attribute("aria-valuenow"))
    assert position == pytest.approx(min(SECONDS, word.end + 0.06), abs=0.06)


def test_downloads(page: Page, recording: Path, expected: Transcript) -> None:
    page.upload(recording)
    for form, name in (("text", "txt"), ("srt", "srt"), ("vtt", "vtt"), ("json", "json")):
        page.driver.find_element(By.CSS_SELECTOR, f"[data-format={name}]").click()
        path = page.downloads / f"{recording.stem}.{name}"
        page.wait(path.exists)
        written = path.read_text("utf-8")
        if form != "json":
            assert written == WRITERS[form](expected) + ("\n" if form == "text" else "")
    content = json.loads(written)
    assert content["text"] == expected.text
    assert len(content["words"]) == len(expected.words)
    assert content["words"][0].keys() == {"word", "start", "end", "confidence"}
    assert not {"type", "subtitles"} & content.keys()


def test_posteriors(page: Page, recording: Path) -> None:
    page.upload(recording)
    page.driver.find_element(By.TAG_NAME, "summary").click()
    page.wait(lambda: page.colours_on("letters") > 5)
    ActionChains(page.driver).move_to_element(page.find("letters")).perform()
    page.wait(lambda: "%" in page.find("hover").text)


def test_posteriors_of_a_long_recording_follow_the_view(page: Page, tmp_path: Path) -> None:
    page.upload(record(tmp_path / "long.wav", LONG_SECONDS))
    page.driver.find_element(By.TAG_NAME, "summary").click()
    page.wait(lambda: page.colours_on("letters") > 5)
    page.find("mel").send_keys(Keys.END)
    page.wait(lambda: not page.find("hover").text)
    ActionChains(page.driver).move_to_element(page.find("letters")).perform()
    page.wait(lambda: "%" in page.find("hover").text)
    assert 60 < float(page.find("hover").text.split()[0]) < LONG_SECONDS
    assert not page.find("error").is_displayed()


def test_garbage_is_refused_in_words(page: Page, recording: Path, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.wav"
    garbage.write_bytes(b"no sound at all")
    page.find("file").send_keys(str(garbage))
    page.wait(lambda: page.find("error").is_displayed())
    assert "not audio" in page.find("error").text
    page.upload(recording)
    assert not page.find("error").is_displayed()
    assert_quiet(page, "415")
    page.driver.get(page.address)  # for what is looked at after every test
    page.wait(lambda: page.find("model").text == "tiny")


# --- Speaking -------------------------------------------------------------------------------------


def test_microphone(page: Page) -> None:
    page.find("speak").click()
    page.wait(lambda: page.find("partial").text or page.words())
    page.wait(lambda: float(page.find("clock").text.rpartition(":")[2]) >= SPOKEN_SECONDS)
    assert page.find("speak").get_attribute("aria-pressed") == "true"
    assert page.colours_on("mel") > 50
    page.find("speak").click()
    page.wait(lambda: "recognised in" in page.find("status").text)
    count = len(page.words())
    assert count > 0
    assert page.find("partial").text == ""
    assert page.find("play").is_enabled()
    length = page.find("clock").text.partition(" / ")[2]
    noun = "word" if count == 1 else "words"
    assert page.find("status").text.startswith(f"{count} {noun} in {length}, recognised")


def test_microphone_stopped_at_once(page: Page) -> None:
    """The one that begins at once afterwards is not disturbed by what the first still waits for."""
    page.press("r", "r", "r")
    page.wait(lambda: page.find("partial").text or page.words())
    page.press("r")
    page.wait(lambda: "recognised in" in page.find("status").text)


# --- Keys, sizes, colours -------------------------------------------------------------------------


def test_keyboard_only(page: Page, recording: Path, expected: Transcript) -> None:
    page.upload(recording)
    page.driver.execute_script("document.activeElement.blur()")
    reached = []
    for _ in range(20):
        page.press(Keys.TAB)
        element = page.focused()
        assert element.accessible_name
        assert element.value_of_css_property("outline-style") != "none"
        reached.append(element.get_attribute("id") or element.text)
        if element.get_attribute("data-index"):
            break
    summary = page.driver.find_element(By.TAG_NAME, "summary").text
    assert reached[0] == "To the transcript"
    assert reached[1:] == ["choose", "speak", "play", "zoom-out", "zoom-in", "mel", summary,
                           "copy", "txt", "srt", "vtt", "json", expected.words[0].word]  # fmt: skip
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert page.focused().get_attribute("data-index") == "1"
    page.press(Keys.ENTER)
    page.wait(lambda: float(page.find("mel").get_attribute("aria-valuenow")) > 0)
    assert expected.words[1].word in page.find("word").text
    page.press(Keys.END)
    assert page.focused().text == expected.words[-1].word
    page.wait(lambda: not page.is_playing())  # else the sound would go on from where keys lead
    page.find("mel").send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    page.wait(lambda: page.find("mel").get_attribute("aria-valuenow") == "0.5")
    page.press(Keys.SPACE)
    page.wait(page.is_playing)
    page.press(Keys.SPACE)
    page.wait(lambda: not page.is_playing())
    page.press("+", "-")


def test_phone(page: Page, recording: Path) -> None:
    page.resize(PHONE, mobile=True)
    page.upload(recording)
    page.driver.find_element(By.TAG_NAME, "summary").click()
    page.wait(lambda: page.colours_on("letters") > 5)
    script = "return [document.documentElement.scrollWidth, innerWidth]"
    assert page.driver.execute_script(script) == [PHONE[0], PHONE[0]]
    script = """return [...document.querySelectorAll('button:not(#transcript *), summary')]
        .filter(b => b.offsetParent).map(b => [b.id || b.textContent, b.offsetHeight])"""
    heights = dict(page.driver.execute_script(script))
    assert len(heights) >= 9
    assert {name: height for name, height in heights.items() if height < MIN_TOUCH_PIXELS} == {}


CONTRASTS = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const over = (top, under) => {
    const alpha = top[3] ?? 1;
    return [0, 1, 2].map((n) => alpha * top[n] + (1 - alpha) * under[n]);
};
const background = (node) => {
    if (!node) return [255, 255, 255];
    const colour = parse(getComputedStyle(node).backgroundColor);
    return (colour[3] ?? 1) === 1 ? colour : over(colour, background(node.parentElement));
};
const luminance = (colour) => {
    const [r, g, b] = colour.map((value) => {
        const v = value / 255;
        return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const found = [];
for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!text || !node.checkVisibility()) continue;
    const paper = background(node);
    const ink = over(parse(getComputedStyle(node).color), paper);
    const [low, high] = [luminance(ink), luminance(paper)].sort((a, b) => a - b);
    found.push([node.textContent.trim(), (high + 0.05) / (low + 0.05)]);
}
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page: Page, recording: Path, scheme: str) -> None:
    page.colour_scheme(scheme)
    page.upload(recording)
    page.settle_colours()
    contrasts = page.driver.execute_script(CONTRASTS)
    assert len(contrasts) > 20
    assert [(text, ratio) for text, ratio in contrasts if ratio < MIN_CONTRAST] == []


def test_schemes_differ(page: Page, recording: Path) -> None:
    page.upload(recording)
    script = """return getComputedStyle(document.body).backgroundColor + "|" +
        document.getElementById("mel").getContext("2d").getImageData(400, 2, 1, 1).data"""
    shown = []
    for scheme in ("light", "dark"):
        page.colour_scheme(scheme)
        page.colours_on("mel")
        page.settle_colours()
        shown.append(page.driver.execute_script(script).split("|"))
    (light_page, light_mel), (dark_page, dark_mel) = shown
    assert light_page != dark_page
    assert light_mel != dark_mel


# --- A server with a key --------------------------------------------------------------------------


def test_key_is_asked_for(model: Path, driver: Any, recording: Path, tmp_path: Path) -> None:
    with running(tiny_app(model, access=Access(KEY))) as (address, _):
        page = Page(driver, address, tmp_path)
        open_page(page)
        page.wait(lambda: page.find("key-form").is_displayed())
        page.find("key").send_keys("wrong", Keys.ENTER)
        page.find("file").send_keys(str(recording))
        page.wait(lambda: page.find("error").is_displayed())
        page.wait(lambda: page.find("key-form").is_displayed())
        page.find("key").clear()
        page.find("key").send_keys(KEY, Keys.ENTER)
        page.wait(lambda: "recognised in" in page.find("status").text)
        page.find("speak").click()
        page.wait(lambda: page.find("partial").text or page.words())
        page.find("speak").click()
        page.wait(lambda: "recognised in" in page.find("status").text)
        assert_quiet(page, "401")
        driver.get("about:blank")
