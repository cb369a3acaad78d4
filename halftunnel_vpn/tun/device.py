"""A TUN device with virtio-net headers and segmentation offloads: Linux Documentation/networking/tuntap.rst.

Only what needs the device's own file descriptor or must happen before the link is up is here. Addresses,
bring-up and routes belong to ``host``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from halftunnel_vpn.counters import Counters
from halftunnel_vpn.errors import HostError

CLONE_DEVICE: Final = "/dev/net/tun"

MAX_FRAME: Final = 10 + 65535
"""Bytes of the largest frame: the virtio-net header and one IP packet."""

BURST_BYTES: Final = 120 * 1024
"""Bytes of frames read in one burst: two of the largest, which stay in the processor's cache for sealing.

Bulk flows reach this bound. Small packets reach the bound on the number of frames."""

MAX_NAME_LENGTH: Final = 15
"""The most bytes of a device name (IFNAMSIZ without its terminating zero)."""

# include/uapi/linux/if_tun.h. Request numbers as on x86, Arm and RISC-V.
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNSETVNETHDRSZ = 0x400454D8
_TUNSETVNETLE = 0x400454DC
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000
_OFFLOAD_CSUM = 0x01
_OFFLOAD_TSO4 = 0x02
_OFFLOAD_TSO6 = 0x04
_OFFLOAD_USO4 = 0x20
_OFFLOAD_USO6 = 0x40
# include/uapi/linux/sockios.h
_SIOCSIFMTU = 0x8922
_SIOCSIFTXQLEN = 0x8943

_VNET_HEADER_LENGTH = 10
_INTERFACE_REQUEST = struct.Struct("16sH22x")
_INTERFACE_INTEGER = struct.Struct("16si20x")
_INTEGER = struct.Struct("i")

_BASE_OFFLOADS = _OFFLOAD_CSUM | _OFFLOAD_TSO4 | _OFFLOAD_TSO6
_USO_OFFLOADS = _OFFLOAD_USO4 | _OFFLOAD_USO6

_REMEDIES: Final = {
    errno.ENOENT: f"There is no {CLONE_DEVICE}: load the driver with `modprobe tun`, or give the container "
    "that device.",
    errno.ENODEV: f"The kernel has no driver behind {CLONE_DEVICE}: load it with `modprobe tun`.",
    errno.ENXIO: f"The kernel has no driver behind {CLONE_DEVICE}: load it with `modprobe tun`.",
    errno.EPERM: "A TUN device needs root (the capability NET_ADMIN): run the command with sudo.",
    errno.EACCES: "A TUN device needs root (the capability NET_ADMIN): run the command with sudo.",
}


class TunDevice:
    """One open TUN device. It vanishes from the host when it is closed or the process ends.

    A *frame* is a 10-byte little-endian virtio-net header followed by one IP packet of up to 65535 bytes.
    ``uso`` is True if the kernel sends, and so accepts, several UDP datagrams in one frame.
    """

    __slots__ = ("_counters", "_sizes", "fd", "name", "uso")

    def __init__(self, fd: int, name: str, *, uso: bool, counters: Counters) -> None:
        self.fd = fd
        self.name = name
        self.uso = uso
        self._counters = counters
        self._sizes = (0, 0)

    @classmethod
    def open(
        cls, name: str, *, mtu: int, txqueuelen: int = 1000, counters: Counters | None = None
    ) -> TunDevice:
        """Create the device ``name`` (at most 15 bytes), down and without addresses.

        ``mtu`` is in bytes, ``txqueuelen`` in frames that wait for :meth:`read`. Raises HostError with one
        sentence: no root, no driver, or the name is taken or not allowed.
        """
        fd, uso = _open(name, mtu, txqueuelen)
        device = cls(fd, name, uso=uso, counters=Counters() if counters is None else counters)
        device._sizes = (mtu, txqueuelen)
        return device

    def reopen(self) -> None:
        """Create the device again after it was deleted. Raises HostError like :meth:`open`.

        The new device has the sizes of the old one, but no addresses and no routes.
        """
        self.close()
        self.fd, self.uso = _open(self.name, *self._sizes)

    def read(self) -> bytes:
        """Return the next frame of the host. Raises BlockingIOError if none waits, HostError if deleted."""
        try:
            return os.read(self.fd, MAX_FRAME)
        except BlockingIOError:
            raise
        except OSError as error:
            raise self._gone(error) from error

    def read_burst(self, limit: int, room: int = BURST_BYTES) -> list[bytes]:
        """Return waiting frames, oldest first: up to ``limit``, or until they have ``room`` bytes.

        Raises HostError when the device was deleted.
        """
        frames: list[bytes] = []
        append = frames.append
        fd = self.fd
        read = os.read
        try:
            for _ in range(limit):
                frame = read(fd, MAX_FRAME)
                append(frame)
                room -= len(frame)
                if room <= 0:
                    break
        except BlockingIOError:
            pass
        except OSError as error:
            raise self._gone(error) from error
        return frames

    def write(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write one frame to the host, in parts. Count one that the kernel refuses as ``tun-write-ERRNO``."""
        try:
            os.writev(self.fd, parts)
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, "unknown")
            self._counters.drop(f"tun-write-{code.lower()}")

    def _gone(self, error: OSError) -> HostError:
        return HostError(f"The device {self.name} is gone ({error.strerror}): bring the tunnel up again.")

    def close(self) -> None:
        """Close the device. Harmless when it is closed already."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _open(name: str, mtu: int, txqueuelen: int) -> tuple[int, bool]:
    """Return the descriptor, and whether the kernel sends several UDP datagrams in one frame."""
    encoded = name.encode()
    # A percent sign would make the kernel choose a number.
    if not 0 < len(encoded) <= MAX_NAME_LENGTH or b"%" in encoded:
        raise _bad_name(name)
    fd = _open_clone_device(name)
    try:
        _set_up(fd, encoded)
        uso = _set_offloads(fd)
        _set_link_integer(encoded, _SIOCSIFMTU, mtu, f"the MTU {mtu}", name)
        _set_link_integer(encoded, _SIOCSIFTXQLEN, txqueuelen, f"the queue length {txqueuelen}", name)
    except OSError as error:
        os.close(fd)
        raise _explained(error, name) from error
    except BaseException:
        os.close(fd)
        raise
    return fd, uso


def _open_clone_device(name: str) -> int:
    try:
        return os.open(CLONE_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _explained(error, name) from error


def _set_up(fd: int, name: bytes) -> None:
    # IFF_TUN_EXCL: never take over a device of another program.
    flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL
    fcntl.ioctl(fd, _TUNSETIFF, _INTERFACE_REQUEST.pack(name, flags))
    fcntl.ioctl(fd, _TUNSETVNETHDRSZ, _INTEGER.pack(_VNET_HEADER_LENGTH))
    fcntl.ioctl(fd, _TUNSETVNETLE, _INTEGER.pack(1))


def _set_offloads(fd: int) -> bool:
    """Make the kernel send unsegmented TCP and, if it can (Linux 6.2), UDP; return True with UDP."""
    try:
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _BASE_OFFLOADS | _USO_OFFLOADS)
        return True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    fcntl.ioctl(fd, _TUNSETOFFLOAD, _BASE_OFFLOADS)
    return False


def _set_link_integer(encoded: bytes, request: int, value: int, what: str, name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        try:
            fcntl.ioctl(control, request, _INTERFACE_INTEGER.pack(encoded, value))
        except OSError as error:
            raise HostError(f"The device {name} does not accept {what}: {error.strerror}.") from error


def _explained(error: OSError, name: str) -> HostError:
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is not None:
        return HostError(remedy)
    if error.errno in (errno.EBUSY, errno.EEXIST):
        return HostError(
            f"The device name {name} is taken: end the program that uses it, or choose another name."
        )
    if error.errno == errno.EINVAL:
        return _bad_name(name)
    return HostError(f"The device {name} cannot be made: {error.strerror}.")


def _bad_name(name: str) -> HostError:
    return HostError(f"The device name {name!r} is not allowed: choose one of 1 to 15 letters and digits.")
