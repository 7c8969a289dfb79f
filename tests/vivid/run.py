"""Cameras against the kernel's own V4L2 code: a virtual machine whose kernel has the test driver ``vivid``.

    python tests/vivid/run.py

Needs qemu-system-x86_64, busybox (static), depmod, v4l2-ctl and a Debian kernel package, unpacked, not installed. As
root on Debian what is missing is fetched with apt-get; elsewhere the run is skipped, and says why. The machine sees
this computer's files read-only, so that the interpreter that runs this script runs in there, too. Nothing is installed
into the running kernel. Takes one to two minutes; times measured in there are those of an emulated processor.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from re import findall

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("EDGEUNIP_VIVID", HERE.parents[1] / "build" / "vivid"))
TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "cpio": "cpio",
    "v4l2-ctl": "v4l-utils",
}
LIMIT_S = 500
# What it takes to see this computer's files, in the order in which they depend on each other.
BOOT_MODULES = ("9pnet", "netfs", "fscache", "9p", "9pnet_virtio", "overlay", "virtio_pci")

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /lower /upper /root
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
for module in /modules/*.ko; do /bin/busybox insmod $module || echo "insmod $module failed"; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=524288,cache=loose host /lower
/bin/busybox mount -t tmpfs none /upper
/bin/busybox mkdir /upper/files /upper/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work none /root
for place in proc sys dev; do /bin/busybox mkdir -p /root/$place; done
/bin/busybox mount -t proc none /root/proc
/bin/busybox mount -t sysfs none /root/sys
/bin/busybox mount -t devtmpfs none /root/dev
/bin/busybox mkdir -p /root/dev/shm
/bin/busybox mount -t tmpfs none /root/dev/shm
exec /bin/busybox switch_root /root /bin/sh {script}
"""

GUEST = """export PATH=/usr/sbin:/usr/bin:/sbin:/bin OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 HOME=/dev/shm
modprobe -d {modules} vivid n_devs=1 node_types=0x1
cd {repository}
{python} -B {guest}
echo "VIVID EXIT $?"
echo o > /proc/sysrq-trigger
while :; do :; done
"""


def main() -> int:
    """Prepare, boot, and return the exit code of the checks in the machine; 0 where the run is skipped."""
    if why := _prepare():
        print(f"skipped: {why}")
        return 0
    modules = next((CACHE / "root/lib/modules").iterdir())
    kernel = next((CACHE / "root/boot").glob("vmlinuz-*"))
    _run(["depmod", "-b", str(CACHE / "root"), modules.name])
    image = _initramfs(modules)
    code = None
    for line in _boot(kernel, image):
        if line.startswith("VIVID EXIT "):
            code = int(line.split()[-1])
        elif line.startswith("VIVID ") or os.environ.get("VERBOSE"):
            print(line.removeprefix("VIVID "), flush=True)
    if code is None:
        print("The machine ended without a result; run again with VERBOSE=1.")
    return 1 if code is None else code


def _prepare() -> str:
    """Fetch what is missing, where that is possible; return why not."""
    if platform.machine() != "x86_64":
        return "the machine is an x86-64 one, and must run this computer's interpreter"
    may_fetch = os.geteuid() == 0 and shutil.which("apt-get") is not None
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing and not (may_fetch and _run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing])):
        return f"needs the packages {', '.join(missing)}"
    if (CACHE / "root/lib/modules").is_dir():
        return ""
    if not may_fetch or not _fetch_kernel():
        return f"needs a kernel package of Debian (linux-image-6.1.0-*-amd64) unpacked in {CACHE / 'root'}"
    return ""


def _fetch_kernel() -> bool:
    CACHE.mkdir(parents=True, exist_ok=True)
    found = subprocess.run(
        ["apt-cache", "search", "--names-only", r"^linux-image-[0-9.]+-[0-9]+-amd64$"], capture_output=True, text=True
    ).stdout.split("\n")
    names = sorted(
        (line.split()[0] for line in found if line), key=lambda name: [int(n) for n in findall(r"\d+", name)]
    )
    if not names or not _run(["apt-get", "download", "-qq", names[-1]], folder=CACHE):
        return False
    archive = next(CACHE.glob("linux-image-*.deb"))
    return _run(["dpkg-deb", "-x", str(archive), str(CACHE / "root")])


def _run(command: list[str], folder: Path | None = None) -> bool:
    return subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL).returncode == 0


def _initramfs(modules: Path) -> Path:
    """Build the first file system: busybox, the modules to see this computer's files, and what to do with them."""
    tree = CACHE / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "bin").mkdir(parents=True)
    (tree / "modules").mkdir()
    shutil.copy(str(shutil.which("busybox")), tree / "bin/busybox")
    for number, path in enumerate(_boot_order(modules)):
        shutil.copy(modules / path, tree / "modules" / f"{number:02d}-{Path(path).name}")
    script = CACHE / "guest.sh"
    script.write_text(
        GUEST.format(modules=CACHE / "root", repository=HERE.parents[1], python=sys.executable, guest=HERE / "guest.py")
    )
    (tree / "init").write_text(INIT.format(script=script))
    (tree / "init").chmod(0o755)
    image = CACHE / "initramfs"
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with image.open("wb") as file:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names.encode(), stdout=file, check=True)
    return image


def _boot_order(modules: Path) -> list[str]:
    """Return the files of the boot modules and of all they need, each after what it needs."""
    needs = dict(line.split(":", 1) for line in (modules / "modules.dep").read_text().splitlines())
    order: list[str] = []
    for name in BOOT_MODULES:
        for path in needs:
            if Path(path).name.split(".ko")[0] == name:
                # modules.dep lists what a module needs from the nearest to the farthest.
                order += [one for one in (*reversed(needs[path].split()), path) if one not in order]
    return order


def _boot(kernel: Path, image: Path) -> Iterator[str]:
    host = "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"
    command = ["timeout", str(LIMIT_S), "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"]
    command += ["-smp", "2", "-m", "2048", "-nographic", "-no-reboot", "-nic", "none"]
    command += ["-kernel", str(kernel), "-initrd", str(image), "-append", "console=ttyS0 panic=-1 quiet"]
    command += ["-fsdev", host, "-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    with process, process.stdout:
        for line in process.stdout:
            yield line.decode(errors="replace").strip()


if __name__ == "__main__":
    sys.exit(main())
