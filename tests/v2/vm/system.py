"""The virtual machine's system: Debian testing with its stock kernel and systemd, and nothing of ours.

Guarantees: the same packages are one entry of the cluster tool's cache: a disk that is never
written to after it is made, and the kernel and first file system to boot it by.
"""
from __future__ import annotations

import os
from pathlib import Path

from lab import cache, host
from lab.config import GOARCH
from lab.rootfs import OPTIONS, SUITE
from lab.run import run
from lab.ui import Board

from . import first

PACKAGES = """
    linux-image-amd64 systemd-sysv udev dbus apparmor kmod mount util-linux procps psmisc
    criu runc containernetworking-plugins busybox-static iproute2 iptables nftables conntrack
    python3 curl openssl ca-certificates libcap2-bin
""".split()
SIZE = "3G"
# What a machine that lives for minutes, and whose devices are known, does not need. containerd loads its AppArmor profile itself.
MASKED = """
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer e2scrub_reap.service
    systemd-networkd-wait-online.service getty@tty1.service serial-getty@ttyS0.service systemd-timesyncd.service
    systemd-random-seed.service systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket
    systemd-udevd-kernel.socket systemd-logind.service apparmor.service modprobe@.service systemd-binfmt.service
    systemd-hibernate-clear.service systemd-remount-fs.service console-getty.service
""".split()
UNIT = """\
[Unit]
Description=What this machine was started for
After=sysinit.target dbus.service
Requires=dbus.service
[Service]
Type=exec
ExecStart=/bin/sh -c 'mkdir -p /run/job && mount -o ro /dev/vdb /run/job && exec /run/job/start'
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
ExecStopPost=/bin/sh -c 'echo "v2: exit $EXIT_STATUS" > /dev/ttyS1; sync; systemctl poweroff --force --force'
TimeoutStartSec=infinity
Delegate=no
[Install]
WantedBy=multi-user.target
"""
NEEDED = {"qemu-system-x86_64": "qemu-system-x86"}


def entry() -> Path:
    return cache.path_of("v2", [SUITE, GOARCH, *sorted(PACKAGES), *OPTIONS, SIZE, *MASKED, UNIT, Path(first.__file__).read_text()])


def provide(board: Board) -> Path:
    """The folder with `disk`, `kernel` and `initrd`."""
    host.install(board, host.RUNS | host.BUILDS | NEEDED)
    if entry().exists():
        return cache.entry(entry(), _make)[0]
    with board.step("system", f"{SUITE}: fetching and unpacking a kernel and systemd"):
        return cache.entry(entry(), _make)[0]


def _make(folder: Path) -> None:
    root = folder / "root"
    run(["mmdebstrap", "--quiet", "--variant=minbase", "--format=directory", *OPTIONS,
         "--include=" + ",".join(PACKAGES), SUITE, root], timeout=1800)
    (root / "etc/fstab").write_text("")     # the root is mounted, and nothing else is there
    (root / "etc/hostname").write_text("v2\n")
    units = root / "etc/systemd/system"
    (units / "job.service").write_text(UNIT)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants/job.service").symlink_to("../job.service")
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    # It was just installed: nothing is to be brought up to date at the first boot.
    (root / "etc/machine-id").write_text("5f" * 16 + "\n")
    for place in ("etc", "var"):
        (root / place / ".updated").write_text("TIMESTAMP_NSEC=9000000000000000000\n")
        os.utime(root / place / ".updated", (4102444800, 4102444800))
    kernel, = (root / "boot").glob("vmlinuz-*")
    kernel.rename(folder / "kernel")
    first.make(root, folder / "initrd")
    for useless in (root / "boot").glob("initrd.img-*"):
        useless.unlink()
    run(["truncate", "-s", SIZE, folder / "disk"])
    run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", root, folder / "disk"], timeout=300)
    run(["rm", "-rf", "--one-file-system", root], timeout=120)
