"""A real Chromium without a window, spoken to in its own protocol (CDP): pages, clicks, and an authenticator of its own (WebAuthn)."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from websockets.sync.client import ClientConnection, connect

from tests.passkey import Passkey

SECONDS = 15.0
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--headless=new", "--remote-debugging-port=0", "--no-first-run", "--no-default-browser-check", "--disable-gpu"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--hide-scrollbars", "--mute-audio", "--no-proxy-server", "--password-store=basic"),
)
_OTHERS = pytest.mark.thorough("the width and the colours are each seen with the other")
SCREENS = (  # the width, and whether it is dark
    *(pytest.param(*screen, id="-".join(map(str, screen))) for screen in ((390, False), (1280, True))),
    *(pytest.param(*screen, id="-".join(map(str, screen)), marks=_OTHERS) for screen in ((390, True), (1280, False))),
)


def chromium() -> str:
    """The browser; where there is none, the test is skipped and says why."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium; the approver's pages are tested in one (Debian: apt-get install chromium)")
    return found


class Tab:
    """One page of the browser, its own session, cookies apart from every other's."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Page.setLifecycleEventsEnabled", enabled=True)

    def send(self, method: str, **params: Any) -> Any:
        """A command, and its result."""
        return self._browser.send(method, session=self._session, **params)

    def authenticator(self, *passkeys: Passkey) -> str:
        """A built-in authenticator that keeps passkeys, these among them, and whose owner shows who they are; its id."""
        self.send("WebAuthn.enable")
        options = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True}
        more = {"isUserVerified": True, "automaticPresenceSimulation": True}
        made = str(self.send("WebAuthn.addVirtualAuthenticator", options={**options, **more})["authenticatorId"])
        for each in passkeys:
            secret = each.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            texts = {"credentialId": each.id, "privateKey": secret, "userHandle": b"user"}
            known: dict[str, Any] = {name: base64.b64encode(data).decode() for name, data in texts.items()}
            rest = {"isResidentCredential": True, "rpId": each.rp_id, "signCount": 0}
            self.send("WebAuthn.addCredential", authenticatorId=made, credential={**known, **rest})
        return made

    def open(self, url: str) -> None:
        """Go there, until it is loaded."""
        loader = self.send("Page.navigate", url=url)["loaderId"]
        self._browser.wait(self._session, "Page.lifecycleEvent", {"loaderId": loader, "name": "load"})

    def run(self, code: str) -> Any:
        """A JavaScript expression's value."""
        found = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def text(self) -> str:
        """What can be read on the page."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def until(self, words: str) -> str:
        """The text of the page once it is loaded and these words stand there."""
        return self.when(f"document.body && document.body.innerText.includes({json.dumps(words)})", words)

    def when(self, code: str, what: str = "") -> str:
        """The text of the page once an expression is true."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            try:
                if self.run(f"document.readyState === 'complete' && !!({code})"):
                    return self.text()
            except (AssertionError, ProtocolError):  # between two pages
                pass
            time.sleep(0.03)
        raise AssertionError(f"not there: {what or code}; the page says: {self.text()}; logged: {self.logged()}")

    def click(self, selector: str) -> None:
        """A real click of a mouse, in the middle of what this selects."""
        js = json.dumps(selector)
        box = f"(e => (e.scrollIntoView({{block: 'center'}}), e.getBoundingClientRect().toJSON()))(document.querySelector({js}))"
        at = self.run(box)
        x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Text into a field."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.send("Input.insertText", text=text)

    def cookies(self) -> list[dict[str, Any]]:
        return list(self.send("Network.getCookies")["cookies"])

    def logged(self) -> list[str]:
        """What the page's console and the browser complained of."""
        said = [e["params"]["entry"]["text"] for e in self._browser.events(self._session, "Log.entryAdded")]
        thrown = [e["params"]["exceptionDetails"]["text"] for e in self._browser.events(self._session, "Runtime.exceptionThrown")]
        return [*said, *thrown]

    def picture(self, path: Path, *, width: int, dark: bool = False, height: int = 900) -> None:
        """A PNG of the whole page at a width."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


class ProtocolError(Exception):
    """The browser refused a command."""


class Browser:
    """A Chromium process."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._ids, self._events = socket, itertools.count(1), list[dict[str, Any]]()

    def send(self, method: str, *, session: str = "", **params: Any) -> Any:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}))
        end = time.monotonic() + SECONDS
        while True:
            told = self._next(end, method)
            if told.get("id") == number:
                if "error" in told:
                    raise ProtocolError(f"{method}: {told['error']}")
                return told["result"]

    def _next(self, end: float, what: str) -> dict[str, Any]:
        try:
            told: dict[str, Any] = json.loads(self._socket.recv(timeout=max(end - time.monotonic(), 0.01)))
        except TimeoutError:
            raise AssertionError(f"the browser does not answer: {what}") from None
        if "id" not in told:
            self._events.append(told)
        return told

    def events(self, session: str, method: str) -> list[dict[str, Any]]:
        return [e for e in self._events if e.get("sessionId") == session and e["method"] == method]

    def wait(self, session: str, method: str, wanted: Mapping[str, str]) -> None:
        """Until an event of a page came that says so."""
        end = time.monotonic() + SECONDS
        while not any(wanted.items() <= each["params"].items() for each in self.events(session, method)):
            self._next(end, method)

    @contextmanager
    def tab(self, *, scripts: bool = True) -> Iterator[Tab]:
        """A page that shares nothing with another."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        if not scripts:
            tab.send("Emulation.setScriptExecutionDisabled", value=True)
        try:
            yield tab
        finally:
            self.send("Target.disposeBrowserContext", browserContextId=context)


def _endpoint(process: subprocess.Popen[bytes], profile: Path, log: Path) -> str:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            port, path = (profile / "DevToolsActivePort").read_text().split()
        except (OSError, ValueError):
            time.sleep(0.05)
        else:
            return f"ws://127.0.0.1:{port}{path}"
    raise AssertionError(log.read_text(errors="replace")[-2000:])


def _environment(home: Path) -> Mapping[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}


def _end_helpers(group: int) -> None:
    """Those that outlive a browser still write to its folder: wait until none is left."""
    end = time.monotonic() + 10
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(group, signal.SIGKILL)
            time.sleep(0.01)


@contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium with a profile of its own, for as long as the block lasts."""
    command = chromium()
    with tempfile.TemporaryDirectory(prefix="chromium-") as folder:
        profile, log = Path(folder) / "profile", Path(folder) / "log"
        flags = [*_FLAGS, f"--user-data-dir={profile}", "--no-sandbox"]  # it sees nothing but this machine's own pages
        with log.open("wb") as out:
            process = subprocess.Popen(
                [command, *flags, "about:blank"], stdout=out, stderr=out, env=_environment(Path(folder)), start_new_session=True
            )
        try:
            with connect(_endpoint(process, profile, log), max_size=None, proxy=None) as socket:
                yield Browser(socket)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _end_helpers(process.pid)
