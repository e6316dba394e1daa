"""The process that holds a freeze, without a kernel."""

import errno
import fcntl
import os

import pytest

from csi.linux import freezer


class Kernel:
    """Answers FIFREEZE and FITHAW, and says what is frozen."""

    def __init__(self) -> None:
        self.frozen: list[int] = []
        self.calls: list[tuple[int, int]] = []
        self.errors: dict[int, int] = {}

    def ioctl(self, fd: int, request: int, _: int) -> int:
        self.calls.append((request, fd))
        if request == freezer.FIFREEZE:
            if fd in self.errors:
                raise OSError(self.errors[fd], os.strerror(self.errors[fd]))
            self.frozen.append(fd)
            return 0
        if fd not in self.frozen:
            raise OSError(errno.EINVAL, "not frozen")
        self.frozen.remove(fd)
        return 0


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    found = Kernel()
    monkeypatch.setattr(fcntl, "ioctl", found.ioctl)
    return found


def test_thaws_in_reverse_order(kernel: Kernel) -> None:
    freeze = freezer.Freeze()
    assert [freeze.add(index, fd) for index, fd in enumerate([3, 4, 5])] == ["own"] * 3
    assert kernel.frozen == [3, 4, 5]
    freeze.end(freezer.ASKED)
    assert kernel.calls[3:] == [(freezer.FITHAW, fd) for fd in (5, 4, 3)]
    assert freeze.status == freezer.ASKED


def test_anothers_is_not_thawed(kernel: Kernel) -> None:
    kernel.errors[4] = errno.EBUSY
    freeze = freezer.Freeze()
    assert [freeze.add(index, fd) for index, fd in enumerate([3, 4])] == ["own", "busy"]
    freeze.end(freezer.ASKED)
    assert kernel.calls[2:] == [(freezer.FITHAW, 3)]


def test_what_cannot_be_frozen_is_told(kernel: Kernel) -> None:
    kernel.errors[4] = errno.EIO
    freeze = freezer.Freeze()
    freeze.add(0, 3)
    with pytest.raises(freezer.RefusalError) as caught:
        freeze.add(1, 4)
    assert (caught.value.index, caught.value.number) == (1, errno.EIO)


def test_what_is_frozen_after_the_bound_is_thawed_at_once(kernel: Kernel) -> None:
    """A filesystem may take longer to write back than the others may stay frozen."""
    freeze = freezer.Freeze()
    freeze.add(0, 3)
    freeze.end(freezer.EXPIRED)
    assert kernel.frozen == []
    freeze.add(1, 4)
    assert kernel.frozen == []


def test_the_first_reason_counts(kernel: Kernel) -> None:
    freeze = freezer.Freeze()
    freeze.end(freezer.EXPIRED)
    freeze.end(freezer.ASKED)
    assert freeze.status == freezer.EXPIRED


def test_one_that_was_thawed_by_another_is_fine(kernel: Kernel) -> None:
    freeze = freezer.Freeze()
    for index, fd in enumerate([3, 4]):
        freeze.add(index, fd)
    kernel.frozen.remove(4)
    freeze.end(freezer.ASKED)
    assert kernel.frozen == []
