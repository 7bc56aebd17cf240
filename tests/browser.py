"""Debian's Chromium, driven as WebDriver says: a page as an operator sees it, with keys and a screen."""

import base64
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

DEADLINE_S = 30
TAB, ENTER, SPACE = "\ue004", "\ue007", " "
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)

_FAINT = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c;
  }
  return [255, 255, 255];
};
const found = new Set();
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement;
  if (!walk.currentNode.nodeValue.trim() || !e.checkVisibility() || e.closest("script,option")) continue;
  const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) found.add(walk.currentNode.nodeValue.trim().slice(0, 60));
}
return [...found];
"""
"""Walks the texts of a page and compares each with the nearest ground that is painted."""


@dataclass(frozen=True, slots=True)
class Browser:
    """A browser with one window. `client` speaks to its driver."""

    client: httpx.Client
    session: str

    def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self._post("url", {"url": url})

    def press(self, keys: str) -> None:
        """Type on the keyboard, wherever the focus is."""
        downs = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._post("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": downs}]})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body in the page returns."""
        return self._post("execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, *arguments: Any) -> Any:
        """Wait until it returns something true, and return that."""
        pause = threading.Event()
        for _ in range(DEADLINE_S * 20):
            found = self.run(script, *arguments)
            if found:
                return found
            pause.wait(0.05)
        raise AssertionError(f"{script} did not come true: {self.text()[:2000]}")

    def text(self) -> str:
        """What can be read on the page."""
        return str(self.run("return document.body.innerText"))

    def path(self) -> str:
        """Where it is."""
        return str(self.run("return location.pathname + location.search"))

    def tab_to(self, wanted: str, presses_max: int = 150) -> None:
        """Press Tab until the focused element's own words are these, and it can be seen that it has the focus."""
        for _ in range(presses_max):
            self.press(TAB)
            found = self.run(
                "const e = document.activeElement, s = getComputedStyle(e);"
                "return [e.getAttribute('aria-label') || e.innerText || e.name || '', s.outlineStyle]"
            )
            if found[0].split("\n")[0].strip() == wanted:
                assert found[1] != "none", f"nobody sees that {wanted!r} has the focus"
                return
        raise AssertionError(f"{wanted!r} is not reached by Tab")

    def looks(self, width: int, height: int, scheme: str) -> None:
        """Be a screen of this size, light or dark."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 2 if width < 600 else 1, "mobile": width < 600},
        )
        self._cdp("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})

    def shot(self, path: Path, *, whole: bool = False) -> None:
        """Save what is seen as a PNG; `whole`: the page down to its end."""
        found = self._cdp("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self) -> bytes:
        """What it prints, on the paper that the page asks for."""
        return base64.b64decode(self._cdp("Page.printToPDF", {"preferCSSPageSize": True})["data"])

    def complaints(self) -> list[str]:
        """What the browser wrote to its console since this was last asked."""
        return [f"{entry['level']}: {entry['message']}" for entry in self._post("se/log", {"type": "browser"})]

    def forget(self) -> None:
        """Drop every cookie."""
        self._cdp("Network.clearBrowserCookies", {})

    def too_faint(self) -> list[str]:
        """Texts with less contrast than 4.5 : 1 against what is painted behind them."""
        return list(self.run(_FAINT))

    def is_wider_than_its_screen(self) -> bool:
        """Whether one has to scroll sideways."""
        return bool(self.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    def _cdp(self, command: str, parameters: dict[str, Any]) -> Any:
        return self._post("goog/cdp/execute", {"cmd": command, "params": parameters})

    def _post(self, command: str, body: dict[str, Any]) -> Any:
        answer = self.client.post(f"/session/{self.session}/{command}", json=body)
        assert answer.status_code == 200, answer.text[:1000]
        return answer.json()["value"]


@contextmanager
def a_browser() -> Iterator[Browser]:
    """Start Chromium and its driver; end both."""
    folder = Path(tempfile.mkdtemp(prefix="scout-browser-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as output:
        driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S, trust_env=False) as client:
            _until(lambda: _is_ready(client))
            made = client.post(
                "/session",
                json={
                    "capabilities": {
                        "alwaysMatch": {
                            "browserName": "chrome",
                            "goog:chromeOptions": {"args": [*FLAGS, f"--user-data-dir={folder / 'profile'}"]},
                            "goog:loggingPrefs": {"browser": "ALL"},
                        }
                    }
                },
            )
            assert made.status_code == 200, made.text
            session = made.json()["value"]["sessionId"]
            try:
                yield Browser(client, session)
            finally:
                client.delete(f"/session/{session}")
    finally:
        driver.terminate()
        driver.wait(DEADLINE_S)
        shutil.rmtree(folder, ignore_errors=True)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return bool(client.get("/status").json()["value"]["ready"])
    except httpx.TransportError:
        return False


def _until(wanted: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(DEADLINE_S * 20):
        if wanted():
            return
        pause.wait(0.05)
    raise AssertionError("chromedriver did not begin to answer")
