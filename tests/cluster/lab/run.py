"""Running programs.

Guarantees: nothing runs without a time limit, and a failure says which command failed,
how, and what it printed.
"""
from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import IO, Any, Mapping, Sequence

from .config import PATIENCE


class Failure(Exception):
    """Something the user should read; printed without a traceback."""


def run(argv: Sequence[str | Path], *, timeout: float = 60, stdin: str | bytes | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None, cwd: Path | None = None, check: bool = True) -> str:
    """Run a program to its end and return what it printed (both streams)."""
    words, timeout = [str(word) for word in argv], timeout * PATIENCE
    data = stdin.encode() if isinstance(stdin, str) else stdin if isinstance(stdin, bytes) else None
    source: dict[str, Any] = {"input": data} if data is not None else {"stdin": stdin or subprocess.DEVNULL}
    try:
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, cwd=cwd, check=False,
            env={**os.environ, **env} if env else None, **source)
    except subprocess.TimeoutExpired as late:
        raise Failure(f"{short(words)} did not end within {timeout:.0f} s") from late
    except FileNotFoundError as missing:
        raise Failure(f"{words[0]} is not installed") from missing
    text = done.stdout.decode(errors="replace")
    if check and done.returncode != 0:
        raise Failure(f"{short(words)} failed with {done.returncode}:\n{last_lines(text)}")
    return text


def short(words: Sequence[str]) -> str:
    line = " ".join(words)
    return line if len(line) < 160 else line[:157] + "..."


def last_lines(text: str, count: int = 15) -> str:
    return "\n".join("    " + line for line in text.strip().splitlines()[-count:])


def tail(path: Path, count: int = 12) -> str:
    """The end of a log file, for an error message."""
    try:
        return f"end of {path}:\n{last_lines(path.read_text(errors='replace'), count)}"
    except OSError:
        return f"(no log at {path})"
