"""Capture without a window: prompts on the terminal, a countdown, a burst. `fl-client capture --headless` runs it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.emotions import EMOTIONS_8
from fl_client.capture.session import Session
from fl_client.capture.studio import Sight, Studio
from fl_client.webcam.source import Frame, Source

KEYS = "Enter: take, 1-8: another emotion, s: skip, u: undo the last burst, q: quit"


@dataclass
class TerminalForm:
    """One session on the terminal.

    Attributes:
        ask: shows a line and returns what the person typed; EOFError ends the session as q does.
        hands_free: nobody types: each burst follows its countdown.
        countdown: seconds before a burst.
        now, sleep: the clock.
    """

    studio: Studio
    source: Source
    console: Console
    ask: Callable[[str], str]
    hands_free: bool = False
    countdown: int = 3
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def run(self) -> None:
        """Go on until all targets are reached, the source ends, or the person quits.

        Raises:
            DeviceError: the camera is gone.
        """
        self.console.print(tally(self.studio.session))
        frames = self.source.frames()
        fruitless = 0
        while not self.studio.session.done and fruitless < 2 * len(EMOTIONS_8):
            emotion = self._choice()
            self.studio.require_consent()
            if emotion == "q":
                return
            if emotion == "u":
                self._say(f"Deleted {_pictures(self.studio.undo())}.")
            elif emotion == "s":
                self.studio.session = self.studio.session.skip()
            else:
                self._count_down()
                taken = self._burst(frames, emotion or None)
                if taken is None:
                    self._say("The source has ended.")
                    return
                fruitless = fruitless + 1 if self.hands_free and not taken else 0
        self._say("All targets are reached." if self.studio.session.done else "No picture was good enough: stopped.")

    def _choice(self) -> str:
        """q, u, s, an emotion's name, or "" for the one that is asked for."""
        session = self.studio.session
        asked = session.prompted or ""
        have = f"{session.count(asked)} of {dict(session.targets)[asked]}"
        self.console.print(f"[bold]{asked}[/] ({have}): please [bold]{session.prompt}[/].", soft_wrap=True)
        while not self.hands_free:
            try:
                typed = self.ask(KEYS).strip().lower()
            except EOFError:
                return "q"
            if typed in ("", "s", "u", "q"):
                return typed
            if typed.isdecimal() and 1 <= int(typed) <= len(EMOTIONS_8):
                return EMOTIONS_8[int(typed) - 1]
            numbers = ", ".join(f"{number} {name}" for number, name in enumerate(EMOTIONS_8, start=1))
            self._say(f"{typed[:20]!r} means nothing here. {numbers}.")
        return ""

    def _count_down(self) -> None:
        for second in range(self.countdown, 0, -1):
            self.console.print(f"  {second} ...")
            self.sleep(1.0)

    def _burst(self, frames: Iterator[Frame], emotion: str | None) -> int | None:
        """Pictures stored, or None when the source ended before the burst did."""
        self.studio.begin(emotion, self.now())
        before = dict(self.studio.left_out)
        taken, hint = 0, ""
        while self.studio.session.burst is not None:
            frame = next(frames, None)
            if frame is None:
                self.studio.session = self.studio.session.ended()
                self._tell(taken, before, None)
                return None
            sight = self.studio.see(frame.picture, self.now())
            taken += sight.stored is not None
            hint = self._follow(sight, hint)
        self._tell(taken, before, sight.advice)
        return taken

    def _follow(self, sight: Sight, said: str) -> str:
        """Say what stands in the way, once until it changes."""
        if sight.stored is not None or sight.fault is None or str(sight.fault) == said:
            return said
        self.console.print(f"  {escape(str(sight.fault))}", style="yellow", soft_wrap=True)
        return str(sight.fault)

    def _tell(self, taken: int, before: dict[object, int] | dict, advice: str | None) -> None:  # type: ignore[type-arg]
        left = [
            f"{count - before.get(fault, 0)} {str(fault).split(':')[0]}"
            for fault, count in self.studio.left_out.items()
            if count > before.get(fault, 0)
        ]
        rest = f" Frames left out: {', '.join(left)}." if left else ""
        self._say(f"{_pictures(taken)} taken.{rest}" + (f" Tip: {advice}." if advice else ""))

    def _say(self, sentence: str) -> None:
        self.console.print(escape(sentence), soft_wrap=True)


def tally(session: Session) -> Table:
    """What there is and what is wanted, for the terminal."""
    table = Table("key", "emotion", title="Pictures")
    table.add_column("there are", justify="right")
    table.add_column("wanted", justify="right")
    targets = dict(session.targets)
    for number, name in enumerate(EMOTIONS_8, start=1):
        table.add_row(str(number), name, f"{session.count(name):,}", f"{targets[name]:,}" if name in targets else "-")
    return table


def _pictures(count: int) -> str:
    return f"{count} picture{'s' * (count != 1)}"
