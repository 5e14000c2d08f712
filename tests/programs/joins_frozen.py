"""Once the container with that ID was dumped and stands still, a process joins its freezer (cgroup v1) that does not, as an `exec`
does that was under way: in its execve it waits for a thread that stands still. Prints what the freezer is by that."""
import os
import sys
import threading
import time
from pathlib import Path

[freezer] = Path("/sys/fs/cgroup/freezer").glob(f"*/kubepods/**/{sys.argv[1]}")
until = time.monotonic() + 60


def state():
    return (freezer / "freezer.state").read_text().strip()


def eventually(is_so):
    while not is_so():
        if time.monotonic() > until:
            sys.exit("not in time")
        time.sleep(0.0005)


def join(task):
    (freezer / "tasks").write_text(str(task))


# By the agent, by CRIU for its own work, and by CRIU in the end.
for wanted in ("FROZEN", "THAWED", "FROZEN"):
    eventually(lambda wanted=wanted: state() == wanted)
thread = threading.Thread(target=threading.Event().wait, daemon=True)
thread.start()
first = os.getpid()
if os.fork() == 0:
    eventually(lambda: Path(f"/proc/{first}/wchan").read_text() in ("begin_new_exec", "de_thread"))
    join(first)
    print(state(), flush=True)
    os._exit(0)
join(thread.native_id)
os.execv("/bin/true", ["true"])
