"""What a person at a terminal sees of a long command, on standard error; nothing in a pipe."""

import sys
import time
from collections.abc import Callable
from shutil import get_terminal_size
from typing import TextIO

REDRAW_SECONDS = 0.2


def messages(count: float) -> str:
    return f"{count:,.0f} messages"


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


class Progress:
    """One line that is drawn again and again: how much is done, how fast, and how long it takes.

    `measure` puts a number into words. Standard output on the same terminal would run into the
    line: then `quiet` it.
    """

    def __init__(
        self,
        measure: Callable[[float], str] = messages,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self._measure = measure
        self._stream = stream or sys.stderr
        self.shown = not quiet and self._stream.isatty()
        self._started = time.monotonic()
        self._due = 0.0
        self._step = ""
        self._width = 0

    def part(self, done: int, total: int) -> None:
        """Say how much of how much is done; a total of 0: nobody knows."""
        self.update(done, done / total if total else None)

    def update(self, done: float, share: float | None = None) -> None:
        """Say how much is done, and which share of all that is (0 to 1), when that is known."""
        now = time.monotonic()
        if not self.shown or now < self._due:
            return
        self._due = now + REDRAW_SECONDS
        seconds = now - self._started
        parts = [self._measure(done)]
        if seconds > REDRAW_SECONDS:
            parts.append(f"{self._measure(done / seconds)}/s")
        if share is not None:
            parts.append(f"{share:.0%}")
            if share > 0 and seconds > REDRAW_SECONDS:
                left = seconds * (1 - min(share, 1)) / share
                parts.append(f"{_clock(left)} left")
        self._draw("  ".join(parts))

    def step(self, what: str) -> None:
        """Name a step whose end cannot be foreseen."""
        self._step, self._started, self._due = what, time.monotonic(), 0.0
        self.tick()

    def tick(self) -> None:
        """Show how long the step has taken until now."""
        now = time.monotonic()
        if self.shown and now >= self._due:
            self._due = now + REDRAW_SECONDS
            self._draw(f"{self._step}  {_clock(now - self._started)}")

    def note(self, text: str) -> None:
        """Write a line that stays, on a terminal or not."""
        self.clear()
        print(text, file=self._stream, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0

    def _draw(self, text: str) -> None:
        # The last column stays free: some terminals would begin a new line.
        text = text[: get_terminal_size().columns - 1]
        # Spaces over what is left of the last text: not every terminal knows how to erase a line.
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"
