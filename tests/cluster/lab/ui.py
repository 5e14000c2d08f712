"""Telling the user what happens.

Guarantees: every step says what it is doing while it does it, and how long it took when it
ends. On a terminal running steps are redrawn in place; elsewhere each is one line, plus a
sign of life every 20 seconds. Steps may run at the same time in several threads.
"""
from __future__ import annotations

import os
import sys
import threading
import time
from typing import Callable, Iterable, TypeVar

T = TypeVar("T")
SIGN_OF_LIFE = 20.0


class Step:
    """One piece of work under way; `say` changes what it is shown to be doing."""

    def __init__(self, board: "Board", name: str, doing: str) -> None:
        self.board, self.name, self.doing = board, name, doing
        self.began = self.shown = time.monotonic()

    def say(self, doing: str) -> None:
        self.doing = doing

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def __enter__(self) -> "Step":
        self.board.begin(self)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.board.end(self, failed=kind is not None)


class Board:
    """All the steps of one command."""

    def __init__(self, stream=sys.stderr) -> None:
        self.stream, self.live = stream, stream.isatty() and os.environ.get("TERM") != "dumb"
        self.began, self.drawn = time.monotonic(), 0
        self.running: list[Step] = []
        self.guard = threading.RLock()
        threading.Thread(target=self._tick, daemon=True).start()

    def step(self, name: str, doing: str) -> Step:
        return Step(self, name, doing)

    def line(self, text: str) -> None:
        with self.guard:
            self._erase()
            print(text, file=self.stream, flush=True)
            self._draw()

    def begin(self, step: Step) -> None:
        with self.guard:
            self.running.append(step)
            self._erase()
            self._draw()

    def end(self, step: Step, failed: bool) -> None:
        with self.guard:
            self._erase()
            self.running.remove(step)
            mark = self._paint("31", "✗") if failed else self._paint("32", "✓")
            print(f"  {mark} {step.name:<16} {step.seconds:7.1f} s  {step.doing}", file=self.stream, flush=True)
            self._draw()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def _paint(self, colour: str, text: str) -> str:
        return f"\033[{colour}m{text}\033[0m" if self.live else text

    def _erase(self) -> None:
        if self.drawn:
            self.stream.write(f"\033[{self.drawn}A\033[J")
            self.drawn = 0

    def _draw(self) -> None:
        if self.live:
            width = max(40, os.get_terminal_size(self.stream.fileno()).columns)
            for step in self.running:
                text = f"    {step.name:<16} {step.seconds:7.1f} s  {step.doing}"
                print(self._paint("2", text[:width - 1]), file=self.stream)
            self.drawn = len(self.running)
            self.stream.flush()

    def _tick(self) -> None:
        while True:
            time.sleep(0.25)
            with self.guard:
                if self.live:
                    self._erase()
                    self._draw()
                    continue
                for step in self.running:
                    if time.monotonic() - step.shown > SIGN_OF_LIFE:
                        step.shown = time.monotonic()
                        print(f"  … {step.name:<16} {step.seconds:7.1f} s  {step.doing}", file=self.stream, flush=True)


def together(jobs: Iterable[Callable[[], T]]) -> list[T]:
    """Run the jobs at the same time; the first failure is raised when all have ended.

    The threads do not keep the program alive, so that an interrupt ends it at once.
    """
    outcomes: dict[int, tuple[T | None, BaseException | None]] = {}

    def body(number: int, job: Callable[[], T]) -> None:
        try:
            outcomes[number] = (job(), None)
        except BaseException as error:      # raised again below
            outcomes[number] = (None, error)

    threads = [threading.Thread(target=body, args=pair, daemon=True) for pair in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _, error in outcomes.values():      # in the order in which they ended
        if error:
            raise error
    return [outcomes[number][0] for number in range(len(threads))]  # type: ignore[misc]
