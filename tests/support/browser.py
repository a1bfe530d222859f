"""A headless Chromium that a test types into, over a pair of pipes (Chrome DevTools Protocol)."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (c for name in ("chromium", "chromium-browser", "google-chrome") if (c := shutil.which(name))),
    None,
)
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Keys that are no letters, as the protocol names them.
_CODES = {
    "Enter": 13,
    "Tab": 9,
    " ": 32,
    "Backspace": 8,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}
SHIFT = 8


class Tab:
    """One page of the browser."""

    def __init__(self, write: int, read: int) -> None:
        self._write = write
        self._read = os.fdopen(read, "rb")
        self._number = 0
        self._session: str | None = None
        self._rest = b""
        # What the page wrote to its console: a blocked style or script, an error.
        self.complaints: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        found = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def open(self, address: str) -> None:
        self._ask("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """Evaluates an expression in the page and returns its value."""
        found = self._ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Waits until an expression is true; the page polls it, not the test."""
        met = self.value(
            "new Promise((done) => { const look = (left) => { let is = false; "
            f"try {{ is = Boolean({condition}); }} catch {{}} "
            "if (is || !left) done(is); else setTimeout(look, 20, left - 1); }; look(1500); })"
        )
        assert met, f"{condition}: {self.value('document.body.innerText')} {self.complaints}"

    def press(self, *keys: str, shift: bool = False) -> None:
        for key in keys:
            event = {"key": key, "modifiers": SHIFT * shift}
            if key in _CODES:
                event["windowsVirtualKeyCode"] = _CODES[key]
                # Without its character a key presses no button, and checks no box.
                event.update({"Enter": {"text": "\r"}, " ": {"text": " "}}.get(key, {}))
            else:
                event["text"] = key
            self._ask("Input.dispatchKeyEvent", type="keyDown", **event)
            event.pop("text", None)
            self._ask("Input.dispatchKeyEvent", type="keyUp", **event)

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Sets the size of the window, and whether the reader prefers dark colours."""
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        wish = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[wish])

    def picture(self, path: Path) -> None:
        found = self._ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        question = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            question["sessionId"] = self._session
        os.write(self._write, json.dumps(question).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.complaints.append(json.dumps(message["params"]))

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = self._read.read1(65536)
            assert more, "the browser ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def close(self) -> None:
        os.close(self._write)
        self._read.close()


@contextmanager
def browser_tab(folder: Path) -> Iterator[Tab]:
    """Starts a browser with one tab, and ends the browser with the block."""
    to_read, write = os.pipe()
    read, to_write = os.pipe()
    # The browser reads commands from descriptor 3 and answers on 4.
    start = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'
    command = [str(CHROMIUM), *QUIET, "--remote-debugging-pipe", f"--user-data-dir={folder}"]
    process = subprocess.Popen(
        ["bash", "-c", start, *command, "about:blank"],
        pass_fds=(to_read, to_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    try:
        tab = Tab(write, read)
        try:
            yield tab
        finally:
            tab.close()
    finally:
        process.kill()
        process.wait(30)
