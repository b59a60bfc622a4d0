"""Steering: which socket of a SO_REUSEPORT group the kernel gives a new connection to.

Rules:

* The index that a program returns is the socket's place in the group, which is the order of `listen()`.
  `ListenerSet` opens in slot order and closes the last one only, so place and slot are the same number.
* One program serves the whole group: it may be attached and detached through any member, while others
  accept, and it outlives the process that attached it (measured on Linux 6.18).
* Connections already in a queue, and handshakes already under way, stay where they are.

Classic BPF, because it needs no privilege; eBPF would. A program is an array of `struct sock_filter`
(linux/filter.h), handed over in a `struct sock_fprog`; both are packed here with `struct`, so nothing is
compiled. Not here: when to steer. That is the master's decision, carried out by `listeners.py`.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Final

# asm-generic/socket.h, Linux 4.5 and 5.3; Python's `socket` has no names for them.
_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_SO_DETACH_REUSEPORT_BPF: Final = 68

# linux/bpf_common.h and linux/filter.h.
_LOAD_WORD_ABSOLUTE: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_MODULO_CONSTANT: Final = 0x94  # BPF_ALU | BPF_MOD | BPF_K
_RETURN_ACCUMULATOR: Final = 0x16  # BPF_RET | BPF_A
_RANDOM: Final = 0xFFFFF000 + 56  # SKF_AD_OFF + SKF_AD_RANDOM: a random 32-bit word

_Instruction = tuple[int, int]


def is_supported() -> bool:
    """True where the kernel can steer: Linux."""
    return sys.platform.startswith("linux")


def steer_below(sock: socket.socket, count: int) -> None:
    """Send each new connection of `sock`'s group to a random one of its first `count` sockets.

    `sock` is any listening member. Replaces a program that is attached. Raises `ValueError` for a `count`
    below 1 and `OSError` where the kernel refuses. Runs in the master; does not block.
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, not {count}: connections must go somewhere")
    _attach(
        sock,
        [(_LOAD_WORD_ABSOLUTE, _RANDOM), (_MODULO_CONSTANT, count), (_RETURN_ACCUMULATOR, 0)],
    )


def steer_off(sock: socket.socket) -> None:
    """Give the choice back to the kernel's hash. Does nothing where no program is attached.

    `sock` is any listening member of the group. Raises `OSError` where the kernel refuses. Runs in the
    master; does not block.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, struct.pack("i", 0))
    except OSError as error:
        if error.errno != errno.ENOENT:  # ENOENT: none attached, which is what was asked for
            raise


def _attach(sock: socket.socket, program: Sequence[_Instruction]) -> None:
    code = b"".join(struct.pack("=HBBI", operation, 0, 0, constant) for operation, constant in program)
    # The kernel copies the program during the call, so the buffer need only live that long.
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HP", len(program), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, header)
