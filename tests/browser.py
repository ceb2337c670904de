"""A headless Chromium, driven over its debugging pipe, that records every request its pages make. Tests and benchmarks use it."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Self


def find_chromium() -> str | None:
    """The browser's program, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((found for name in names if (found := shutil.which(name))), None)


class BrowserError(Exception):
    """The browser, or a script in it, failed."""


class Tab:
    """One page. Its `requests` are those that it and its workers made: method, address, body length and headers."""

    def __init__(self, chromium: "Chromium", target: str, session: str) -> None:
        self._chromium, self.target, self._sessions = chromium, target, [session]
        self.requests: list[dict[str, Any]] = []
        self.messages: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        return self._chromium.call(method, parameters, self._sessions[0])

    def run(self, script: str) -> Any:
        """The value of a script, awaited."""
        how = {"awaitPromise": True, "returnByValue": True, "userGesture": True, "allowUnsafeEvalBlockedByCSP": False}
        answer = self.call("Runtime.evaluate", expression=script, **how)
        if "exceptionDetails" in answer:
            raise BrowserError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60.0) -> Any:
        """The value of a script as soon as it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            if time.monotonic() > end:
                raise BrowserError(f"{script} is still {value} after {seconds} s; the page says: {self.messages[-5:]}")
            time.sleep(0.05)
        return value

    def open(self, address: str) -> None:
        """Go there."""
        self.call("Page.navigate", url=address)

    def before(self, script: str) -> None:
        """Runs in each page from now on, before any script of its own."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def click(self, name: str) -> None:
        """As a person does, on the element with this id."""
        self.run(f"document.getElementById({name!r}).click()")

    def choose_file(self, name: str, path: Path) -> None:
        """Put a file into the input with this id."""
        node = self.call("Runtime.evaluate", expression=f"document.getElementById({name!r})")["result"]["objectId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], objectId=node)

    def size(self, width: int, height: int, scale: float = 1.0, dark: bool = False) -> None:
        """The screen's size in CSS pixels, and its colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 500)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def _heard(self, message: dict[str, Any], session: str) -> None:
        method, facts = message["method"], message.get("params", {})
        if method == "Network.requestWillBeSent":
            asked = facts["request"]
            body = asked.get("postData") or ("?" if asked.get("hasPostData") else "")
            self.requests.append({"method": asked["method"], "url": asked["url"], "body": body, "headers": asked["headers"]})
        elif method in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
            self.messages.append(json.dumps(facts)[:600])
        elif method == "Target.attachedToTarget":
            worker = facts["sessionId"]
            self._sessions.append(worker)
            for command in ("Network.enable", "Runtime.enable"):
                self._chromium.post(command, {}, worker)
            more = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
            self._chromium.post("Target.setAutoAttach", more, worker)
            self._chromium.post("Runtime.runIfWaitingForDebugger", {}, worker)


class Chromium:
    """A browser with a fresh profile. It ends with the `with` block.

    Args:
        camera: an .mjpeg file that its camera shows over and over; None takes the camera away.
    """

    def __init__(self, camera: Path | None = None, *arguments: str) -> None:
        program = find_chromium()
        if program is None:
            raise BrowserError("There is no Chromium here.")
        self._folder = tempfile.mkdtemp(prefix="chromium-")
        read_commands, self._write = os.pipe()
        self._read, write_answers = os.pipe()
        fake = ["--use-fake-ui-for-media-stream"]
        if camera is not None:
            fake += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={camera}"]
        command = [
            program,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--mute-audio",
            "--hide-scrollbars",
            "--ignore-certificate-errors",
            "--remote-debugging-pipe",
            f"--user-data-dir={self._folder}",
            *fake,
            *arguments,
            "about:blank",
        ]
        # The pipe's ends must have the numbers 3 and 4, which a shell gives them.
        shell = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "-", *command],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._number = 0
        self._answers: dict[int, Queue[dict[str, Any]]] = {}
        self._tabs: list[Tab] = []
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call("Browser.close", {}, seconds=5)
            self._process.wait(10)
        except (BrowserError, subprocess.TimeoutExpired, OSError):
            self._process.kill()
            self._process.wait()
        self._thread.join(5)
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def tab(self) -> Tab:
        """A new page."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        tab = Tab.__new__(Tab)
        self._tabs.append(tab)
        tab.__init__(self, target, session)  # type: ignore[misc]
        return tab

    def post(
        self, method: str, parameters: dict[str, Any], session: str | None = None, answer: Queue[dict[str, Any]] | None = None
    ) -> None:
        """A command whose answer goes into a queue, or nowhere."""
        with self._guard:
            self._number += 1
            number = self._number
            if answer is not None:
                self._answers[number] = answer
            message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
            content = memoryview(json.dumps(message).encode() + b"\0")
            while content:
                content = content[os.write(self._write, content) :]

    def call(self, method: str, parameters: dict[str, Any], session: str | None = None, seconds: float = 60) -> dict[str, Any]:
        """A command, and its answer."""
        answer: Queue[dict[str, Any]] = Queue()
        self.post(method, parameters, session, answer)
        try:
            found = answer.get(timeout=seconds)
        except Empty as error:
            raise BrowserError(f"The browser does not answer {method}.") from error
        if "error" in found:
            raise BrowserError(f"{method}: {found['error']['message']}")
        return dict(found["result"])

    def _listen(self) -> None:
        rest = b""
        while data := os.read(self._read, 1 << 20):
            *messages, rest = (rest + data).split(b"\0")
            for content in messages:
                message = json.loads(content)
                if "id" in message:
                    waiting = self._answers.pop(message["id"], None)
                    if waiting is not None:
                        waiting.put(message)
                    continue
                for tab in self._tabs:
                    if message.get("sessionId") in getattr(tab, "_sessions", ()):
                        tab._heard(message, message["sessionId"])
