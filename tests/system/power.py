"""A file system whose power can be cut: ext4 or xfs in a file, on a loop device."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess

import pytest
from services import needs, wait_for

KINDS = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}

_BYTES = 320 << 20  # xfs takes no less than 300 MiB; the file is sparse
_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN, _IOR('X', 125, __u32)
_NO_FLUSH = 2  # what is not on the disk at this moment, log included, never gets there


class Disk:
    """A mounted file system. ``where`` is its folder; whoever has a file open in it must close it before a restart."""

    def __init__(self, folder, kind):
        """Make it in ``folder``, and mount it; skip the test where that is not allowed."""
        needs(KINDS[kind][0], "losetup", "mount", "umount")
        if os.geteuid() != 0:
            pytest.skip("mounting a file system needs root")
        self.kind, self.where = kind, folder / kind
        image = folder / f"{kind}.img"
        with image.open("wb") as file:
            file.truncate(_BYTES)
        self.where.mkdir()
        _run(*KINDS[kind], image)
        self._device = None
        try:
            # One device for all mounts: one that mount makes anew may meet the end of the one before.
            self._device = _run("losetup", "--find", "--show", image)
            self._mount()
        except subprocess.CalledProcessError as error:
            self._detach()
            pytest.skip(f"{kind} cannot be mounted here: {error.stderr.strip()}")

    def cut(self):
        """Cut the power: what is not on the disk is lost, and every call on a file fails from now on."""
        handle = os.open(self.where, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", _NO_FLUSH))
        finally:
            os.close(handle)

    def restart(self):
        """Mount it again, as after the power came back."""
        wait_for(self._unmounted, 10, f"the end of every use of {self.where}")
        # Another process's mount namespace may hold a copy for a while: then mount would give the dead one again.
        wait_for(self._free, 60, f"the end of every mount of {self._device}")
        self._mount()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            _run("umount", self.where)
        except subprocess.CalledProcessError:
            _run("umount", "--lazy", self.where)  # a failed test left a file open: let it go with the process
        finally:
            self._detach()

    def _mount(self):
        _run("mount", self._device, self.where)

    def _unmounted(self):
        return subprocess.run(["umount", self.where], capture_output=True).returncode == 0

    def _free(self):
        try:
            os.close(os.open(self._device, os.O_RDONLY | os.O_EXCL))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    def _detach(self):
        if self._device is not None:
            _run("losetup", "--detach", self._device)


def _run(*words):
    done = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)
    return done.stdout.strip()
