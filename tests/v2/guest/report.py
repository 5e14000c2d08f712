"""What was seen, one line each.

Guarantees: whatever is not as it should be is counted; `close` gives the exit code. The last line is one that test
runners' readers know.
"""
import time
from http.client import HTTPException
from pathlib import Path

# All limits are for a real processor, and multiplied by this.
PATIENCE = float(Path("/run/job/patience").read_text())
_began = time.monotonic()
_seen = {True: 0, False: 0}


def say(text):
    print(text, flush=True)


def check(what, good, seen=""):
    """One thing that must be so."""
    _seen[bool(good)] += 1
    say(f"{'ok  ' if good else 'BAD '} {what}" + (f": {seen}" if seen != "" else ""))
    return good


def same(what, seen, wanted):
    return check(what, seen == wanted, seen if seen == wanted else f"{seen!r} instead of {wanted!r}")


def eventually(what, limit, holds, pause=0.1):
    """Asks again until it gives something; the last complaint is told."""
    until, last = time.monotonic() + limit * PATIENCE, "not yet"
    while time.monotonic() < until:
        try:
            if found := holds():
                return found
        except (OSError, KeyError, ValueError, IndexError, AssertionError, HTTPException) as error:
            last = f"{type(error).__name__}: {error}"
        time.sleep(pause)
    raise AssertionError(f"{what}: not within {limit * PATIENCE:.0f} s; at last: {last}")


def close():
    say(f"test result: {'ok' if not _seen[False] else 'FAILED'}. {_seen[True]} passed; {_seen[False]} failed; "
        f"finished in {time.monotonic() - _began:.1f} s")
    return 0 if _seen[True] and not _seen[False] else 1
