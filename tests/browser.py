"""Debian's headless Chromium, by its own protocol over a pipe."""

import contextlib
import itertools
import json
import os
import shlex
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One page at a time.

    Attributes:
      complaints: what the console was told, and what was not caught.
      requests: addresses that the page asked for, its own first.
    """

    def __init__(self, directory):
        there, self._write = os.pipe()
        self._read, back = os.pipe()
        words = [
            *(
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ),
            *("--remote-debugging-pipe", f"--user-data-dir={directory}", "about:blank"),
        ]
        # Where the protocol is spoken is fixed.
        command = f"exec {shlex.join(words)} 3<&{there} 4>&{back}"
        self._process = subprocess.Popen(
            ["bash", "-c", command],
            pass_fds=(there, back),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(back)
        self._numbers, self._rest, self._session = itertools.count(1), b"", None
        self.complaints, self.requests, self._loaded = [], [], False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call(
            "Target.attachToTarget", targetId=target, flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        with contextlib.suppress(OSError):
            os.close(self._write)
        os.close(self._read)
        self._process.kill()
        self._process.wait()

    def open(self, path, width=1200, height=900):
        """Load a file, and return the seconds until it was there."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1},
            mobile=width < 600,
        )
        self.complaints.clear()
        self.requests.clear()
        self._loaded, began = False, time.perf_counter()
        self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._take()
        return time.perf_counter() - began

    def run(self, script):
        """What an asynchronous function with this body returns."""
        found = self.call(
            "Runtime.evaluate",
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def key(self, name):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if name == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=name, **text)

    def call(self, method, **params):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._take()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _take(self):
        """The next message; what the page did is kept."""
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 20)
            assert data, "the browser is gone"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(message["params"])
            case "Log.entryAdded":
                self.complaints.append(message["params"])
        return message
