"""containerd's folder with images in it, made here: an emulated processor would unpack and hash them for minutes.

Guarantees: the containerd that is started for it has a folder and a socket of its own, and ends before this returns.
"""
from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from lab import programs
from lab.run import Failure, run

CONFIG = """\
version = 3
root = '{root}'
state = '{state}'
disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime',
                    'io.containerd.nri.v1.nri', 'io.containerd.snapshotter.v1.btrfs', 'io.containerd.snapshotter.v1.erofs']
[grpc]
  address = '{socket}'
[ttrpc]
  address = '{socket}.ttrpc'
"""
LIMIT = 30.0


def make(root: Path, archives: list[Path]) -> None:
    """Imports the archives into a fresh folder `root`."""
    with tempfile.TemporaryDirectory(prefix="shadow-v2-", dir="/run") as place:
        socket, config = Path(place) / "socket", Path(place) / "config.toml"
        config.write_text(CONFIG.format(root=root, state=Path(place) / "state", socket=socket))
        with (Path(place) / "log").open("w") as log:
            server = subprocess.Popen([programs.CONTAINERD.binary("containerd"), "--config", config], stdin=subprocess.DEVNULL,
                                      stdout=log, stderr=log)
        try:
            _answers(server, socket, Path(place) / "log")
            for archive in archives:
                run([programs.CONTAINERD.binary("ctr"), "--address", socket, "--namespace", "k8s.io", "images", "import", archive],
                    timeout=300)
        finally:
            server.terminate()
            server.wait(LIMIT)


def _answers(server: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    until = time.monotonic() + LIMIT
    while time.monotonic() < until and server.poll() is None:
        done = subprocess.run([programs.CONTAINERD.binary("ctr"), "--address", socket, "version"], capture_output=True, timeout=LIMIT)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    raise Failure(f"containerd does not answer: {log.read_text()[-2000:]}")
