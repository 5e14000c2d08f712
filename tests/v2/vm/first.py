"""The first file system of the machine: what finds the disk, and no more.

Guarantees: the modules are the stock kernel's own; nothing else runs before systemd. Debian's own first file system is
forty times as large, which an emulated processor unpacks for a minute.
"""
from __future__ import annotations

import lzma
from pathlib import Path

WANTED = ("virtio_pci", "virtio_blk", "ext4")
INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /$module; done
until [ -b /dev/vda ]; do /bin/busybox usleep 20000; done
/bin/busybox mount -t ext4 /dev/vda /root
exec /bin/busybox switch_root /root /sbin/init
"""


def make(root: Path, out: Path) -> None:
    """From a root file system with a kernel's modules and a static busybox."""
    folder, = (root / "usr/lib/modules").iterdir()
    modules = _in_order(folder)
    files: list[tuple[str, int, bytes]] = [(name, 0o40755, b"") for name in ("bin", "dev", "root")]
    files.append(("bin/busybox", 0o100755, (root / "usr/bin/busybox").read_bytes()))
    files += [(_name(path), 0o100644, _unpacked(folder / path)) for path in modules]
    files.append(("init", 0o100755, INIT.format(modules=" ".join(map(_name, modules))).encode()))
    out.write_bytes(b"".join(_entry(number, *file) for number, file in enumerate(files, 1)) + _entry(0, "TRAILER!!!", 0, b""))


def _in_order(folder: Path) -> list[str]:
    """Files of the wanted modules, each after those that it needs. What is built in needs none."""
    needs = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[path] = others.split()
    named = {_name(path).removesuffix(".ko").replace("-", "_"): path for path in needs}
    order: list[str] = []

    def add(path: str) -> None:
        for other in reversed(needs[path]):
            add(other)
        if path not in order:
            order.append(path)

    for module in WANTED:
        if module in named:
            add(named[module])
    return order


def _name(path: str) -> str:
    return Path(path).name.removesuffix(".xz")


def _unpacked(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    """One file as cpio's `newc` has it."""
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return _padded(header) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
