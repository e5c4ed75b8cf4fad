"""Restrict the system calls of a process by a seccomp filter, written in the kernel's own bytecode.

It is an allow-list, so a call that is unknown here, or that a later kernel adds, fails. It contains the calls that
computing needs, and no call that reaches another process, a network, or the machine: no fork, no exec, no sockets
except pairs that are connected to each other (with which asyncio wakes itself), no signals to others, no ptrace, no
shared memory, no mounts, no namespaces, no io_uring, no bpf, no change of a file's owner or mode.

A refused call fails with EPERM; a call newer than Linux 5.4 fails with ENOSYS, so that a C library uses an older call.
Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator

# fmt: off
# name: (number on x86_64, number on aarch64)
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # bytes in and out
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "close": (3, 57), "lseek": (8, 62), "fsync": (74, 82), "fdatasync": (75, 83),
    "ftruncate": (77, 46), "flock": (73, 32), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    "pipe": (22, None), "pipe2": (293, 59),
    # files by name
    "stat": (4, None), "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "getdents": (78, None),
    "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49), "readlink": (89, None), "readlinkat": (267, 78),
    "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "umask": (95, 166),
    # memory
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214),
    # this process and its threads
    "futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293), "exit": (60, 93), "exit_group": (231, 94),
    "set_tid_address": (218, 96), "gettid": (186, 178), "getpid": (39, 172), "getppid": (110, 173),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "arch_prctl": (158, None), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getgroups": (115, 158),
    "getpgrp": (111, None), "getpgid": (121, 155), "getsid": (124, 156), "getresuid": (118, 148),
    "getresgid": (120, 150), "getrusage": (98, 165), "getrlimit": (97, 163), "times": (100, 153), "uname": (63, 160),
    "sysinfo": (99, 179), "getrandom": (318, 278),
    # signals to itself, clocks
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133), "rt_sigtimedwait": (128, 137), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "alarm": (37, None), "setitimer": (38, 103), "getitimer": (36, 102),
    "pause": (34, None), "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None),
    # waiting for descriptors
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22), "eventfd2": (290, 19),
    "sendto": (44, 206), "recvfrom": (45, 207),
}
# fmt: on

_CLONE_THREAD = 0x10000
_O_TRUNC_AND_MODE = 0o1003
_AF_UNIX, _SOCK_STREAM, _SOCKET_TYPE = 1, 1, 0xF
_FCNTL = {0, 1, 2, 3, 4, 5, 6, 7, 1030}
"""Duplicating, flags and locks. Not F_SETOWN, which sends signals."""
_IOCTL = {0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451}
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
# O_TRUNC without write access empties a file on kernels whose Landlock does not know truncation yet.
_OPEN = {0, 1, 2, 0o1001, 0o1002}

_Condition = tuple[int, int, set[int]]
"""Index of an argument, mask, values that pass."""
_CONDITIONAL: dict[str, tuple[tuple[int | None, int | None], tuple[_Condition, ...]]] = {
    "open": ((2, None), ((1, _O_TRUNC_AND_MODE, _OPEN),)),
    "openat": ((257, 56), ((2, _O_TRUNC_AND_MODE, _OPEN),)),
    "fcntl": ((72, 25), ((1, 0xFFFFFFFF, _FCNTL),)),
    "ioctl": ((16, 29), ((1, 0xFFFFFFFF, _IOCTL),)),
    "prlimit64": ((302, 261), ((0, 0xFFFFFFFF, {0}),)),
    "clone": ((56, 220), ((0, _CLONE_THREAD, {_CLONE_THREAD}),)),
    # Not of datagrams: those can be sent to another's socket, by its name.
    "socketpair": ((53, 199), ((0, 0xFFFFFFFF, {_AF_UNIX}), (1, _SOCKET_TYPE, {_SOCK_STREAM}))),
}
"""name: its numbers, and what its arguments must be"""
_FIRST_RECENT = 424

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine -> column of the tables, and the kernel's name for it (AUDIT_ARCH_*)."""

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2

_Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, constant: struct sock_filter."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


def is_available() -> bool:
    """Return whether this machine's architecture is known here, and its kernel takes filters."""
    if os.uname().machine not in _ARCHITECTURES:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, None)
    return ctypes.get_errno() == errno.EFAULT  # it would have read a filter, had there been one


def install(allow_threads: bool) -> None:
    """Filter this thread's system calls, and those of what it starts, for good. Raises OSError when it cannot."""
    instructions = [_Filter(*instruction) for instruction in _instructions(allow_threads)]
    array = (_Filter * len(instructions))(*instructions)
    program = _Program(len(instructions), ctypes.cast(array, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "seccomp")


def _instructions(allow_threads: bool) -> Iterator[_Instruction]:
    column, architecture = _ARCHITECTURES[os.uname().machine]
    yield from [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    yield (_LOAD, 0, 0, _NUMBER)
    for numbers in _ALLOWED.values():
        number = numbers[column]
        if number is not None:
            yield from [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for name, (numbers, conditions) in _CONDITIONAL.items():
        number = numbers[column]
        if number is not None and (allow_threads or name != "clone"):
            yield from _conditional(number, conditions)
    # x86_64's x32 calls have numbers from 2**30 on, and so are refused here too.
    yield from [(_AT_LEAST, 0, 1, _FIRST_RECENT), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    yield (_RETURN, 0, 0, _ERRNO | errno.EPERM)


def _conditional(number: int, conditions: Iterable[_Condition]) -> list[_Instruction]:
    body: list[_Instruction] = []
    for argument, mask, values in conditions:
        low_word = _ARGUMENTS + 8 * argument  # both architectures are little-endian
        body += [(_LOAD, 0, 0, low_word), (_AND, 0, 0, mask)]
        body += [(_EQUAL, len(values) - index, 0, value) for index, value in enumerate(sorted(values))]
        body.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    body.append((_RETURN, 0, 0, _ALLOW))
    return [(_EQUAL, 0, len(body), number), *body]
