"""A tenant who owns a volume and means ill: swaps what is in it as fast as he can, until killed.

    python tests/security/tenant.py <his volume> <seed> <what he would like to reach>...

He goes on after the volume was unmounted, as a process may that got away with a mount namespace of
its own. Into the file descriptor 3 he writes a line when somebody has opened one of his fifos.
"""

import contextlib
import ctypes
import errno
import os
import random
import signal
import stat
import struct
import sys

_CLONE_NEWNS, _EXCHANGE = 0x20000, 2
_PR_SET_PDEATHSIG = 1
_MS_PRIVATE_RECURSIVE = (1 << 18) | 0x4000
_SUBVOL_CREATE, _SETFLAGS, _FSSETXATTR = 0x5000940E, 0x40086602, 0x401C5820
_MAKE = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NAMES = [f"n{number}" for number in range(6)]

_libc = ctypes.CDLL(None, use_errno=True)


class Tenant:
    """One of them."""

    def __init__(self, volume: str, rng: random.Random, prey: list[str]) -> None:
        self._rng = rng
        self._prey = prey
        self._top = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
        self._places = [self._top]
        self._makers = (
            self._directory,
            self._file,
            self._link,
            self._hard_link,
            self._fifo,
            self._device,
            self._subvolume,
            self._mount,
            self._sparse,
            self._flagged,
        )

    def work(self) -> None:
        """Does one thing; most of them fail, for something is always in the way."""
        name = self._rng.choice(_NAMES)
        place = self._rng.choice(self._places)
        draw = self._rng.random()
        with contextlib.suppress(OSError):
            if draw < 0.45:
                self._rng.choice(self._makers)(place, name)
            elif draw < 0.85:
                self._swap(place, name, self._rng.choice(self._places), self._rng.choice(_NAMES))
            else:
                self._remove(place, name)

    def _swap(self, one: int, first: str, two: int, second: str) -> None:
        _check(_libc.renameat2(one, first.encode(), two, second.encode(), _EXCHANGE))

    def _remove(self, place: int, name: str) -> None:
        try:
            os.unlink(name, dir_fd=place)
        except IsADirectoryError:
            os.rmdir(name, dir_fd=place)

    def _directory(self, place: int, name: str) -> None:
        os.mkdir(name, dir_fd=place)
        inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
        for inner in ("file", "inner", "deep"):
            os.close(os.open(inner, _MAKE, dir_fd=inside))
        self._places.append(inside)
        if len(self._places) > 12:
            os.close(self._places.pop(1))

    def _file(self, place: int, name: str) -> None:
        fd = os.open(name, _MAKE, dir_fd=place)
        try:
            os.write(fd, b"bait" * 1000)
        finally:
            os.close(fd)

    def _sparse(self, place: int, name: str) -> None:
        fd = os.open(name, _MAKE, dir_fd=place)
        try:
            os.ftruncate(fd, self._rng.choice((1 << 30, 1 << 40, 1 << 42)))
            os.pwrite(fd, b"x", self._rng.randrange(1 << 30))
        finally:
            os.close(fd)

    def _link(self, place: int, name: str) -> None:
        os.symlink(self._rng.choice(self._prey), name, dir_fd=place)

    def _hard_link(self, place: int, name: str) -> None:
        os.link(self._rng.choice(_NAMES), name, src_dir_fd=self._top, dst_dir_fd=place)

    def _fifo(self, place: int, name: str) -> None:
        os.mkfifo(name, dir_fd=place)
        for _ in range(20):
            try:
                os.close(os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=place))
            except OSError as error:
                if error.errno == errno.ENXIO:  # nobody reads from it
                    continue
                return
            if stat.S_ISFIFO(os.stat(name, dir_fd=place, follow_symlinks=False).st_mode):
                os.write(3, b"somebody has opened a fifo\n")
            return

    def _device(self, place: int, name: str) -> None:
        kind, numbers = self._rng.choice(
            ((stat.S_IFCHR, (1, 3)), (stat.S_IFCHR, (1, 5)), (stat.S_IFBLK, (7, 0)))
        )
        os.mknod(name, kind | 0o666, os.makedev(*numbers), dir_fd=place)

    def _subvolume(self, place: int, name: str) -> None:
        _ioctl(place, _SUBVOL_CREATE, struct.pack("=q4088s", 0, name.encode()))

    def _mount(self, place: int, name: str) -> None:
        """In a namespace of his own; nobody else sees it, but the kernel knows of it."""
        target = f"/proc/self/fd/{place}/{name}".encode()
        _check(_libc.mount(b"tmpfs", target, b"tmpfs", 0, b"size=1m"))

    def _flagged(self, place: int, name: str) -> None:
        """Immutable, append-only, or of another project."""
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=place)
        try:
            if self._rng.random() < 0.5:
                _ioctl(fd, _SETFLAGS, struct.pack("=q", self._rng.choice((0, 0x10, 0x20))))
            else:
                _ioctl(fd, _FSSETXATTR, struct.pack("=5I8x", 0, 0, 0, 1 << 30, 0))
        finally:
            os.close(fd)


def _ioctl(fd: int, request: int, argument: bytes) -> None:
    buffer = ctypes.create_string_buffer(argument, max(len(argument), 64))
    _check(_libc.ioctl(fd, ctypes.c_ulong(request), buffer))


def _check(status: int) -> None:
    if status < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    """Works until killed."""
    volume, seed, *prey = sys.argv[1:]
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))
    _check(_libc.unshare(_CLONE_NEWNS))
    _check(_libc.mount(b"none", b"/", None, _MS_PRIVATE_RECURSIVE, None))
    tenant = Tenant(volume, random.Random(int(seed)), prey)
    for _ in range(500):
        tenant.work()
    os.write(3, b"ready\n")
    while True:
        tenant.work()


if __name__ == "__main__":
    main()
