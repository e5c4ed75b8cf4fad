"""Confine a process before it runs untrusted code. Linux only; each step reports whether it succeeded.

    namespaces     separate processes, network (even its loopback is down), IPC and host name
    private_root   a private file tree with only Python's standard library, read-only except for a small /tmp in memory
    landlock       the kernel opens no other file for the process, even if it can reach one
    unprivileged   not root; if it was started as root, a user who owns nothing on this machine
    seccomp        only the system calls that computing needs (seccomp.py)
    limits         memory, processor time, open files, file size, threads (setrlimit)

An ordinary user gets namespaces through a user namespace, root gets them directly. Containers often forbid both.
Landlock and seccomp need no privilege, so they also work there, and then no file at all can be written.
"""

# ruff: noqa: PTH102, PTH103, PTH106, PTH112, PTH116, PTH120, PTH123, PTH208
# A new box starts for every completion. pathlib, dataclasses and typing would take longer to import than all of this.

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Collection, Sequence

from rewards.sandbox.kernel import landlock, seccomp

GUARDS: dict[str, tuple[frozenset[str], ...]] = {
    "network": (frozenset({"namespaces"}), frozenset({"seccomp"})),
    "files": (frozenset({"private_root"}), frozenset({"landlock", "seccomp"})),
    "processes": (frozenset({"namespaces"}), frozenset({"seccomp"})),
}
"""For each protection, sets of steps; each set alone is enough."""

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_NOATIME, _MS_NODIRATIME, _MS_RELATIME, _ST_RELATIME = 1 << 10, 1 << 11, 1 << 21, 1 << 12
_MS_BIND, _MS_REC, _MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
_SIGKILL = 9
_READ = landlock.READ_FILE | landlock.READ_DIR

_UNUSED_IDS = 0x70000000
"""User ids from here on are unused on every machine. The process id is added, so that each box has its own user."""
_NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True)


def is_guarded(what: str, active: Collection[str]) -> bool:
    """Return whether the active steps protect ``what``, one of GUARDS."""
    return any(steps <= set(active) for steps in GUARDS[what])


def enter_namespaces() -> bool:
    """Enter new namespaces for processes (from the next fork on), network, IPC, host name and mounts.

    Returns False if that is forbidden.
    """
    flags = _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
    user, group = os.geteuid(), os.getegid()
    # Root of a container is often not allowed to, and then has to go the way of any user.
    if _libc.unshare(flags) != 0:
        if _libc.unshare(flags | _CLONE_NEWUSER) != 0:
            return False
        try:
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{_NOBODY} {user} 1")
            _write("/proc/self/gid_map", f"{_NOBODY} {group} 1")
        except OSError:
            return False
    return bool(_libc.sethostname(b"box", 3) == 0)


def enter_private_root(readable: Sequence[str], hidden: Sequence[str], tmp_bytes: int) -> bool:
    """Replace the machine's file tree by a private one. Needs the namespaces.

    Returns False if mounting is forbidden. Raises OSError if it fails later, when the process is already unusable.
    """
    try:
        _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
        _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
        os.mkdir("/tmp/old")
        _check(_libc.pivot_root(b"/tmp", b"/tmp/old"))
    except OSError:
        return False
    os.chdir("/")
    for path in readable:
        _show(path)
    for path in hidden:
        _mount("tmpfs", path, "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, "size=4k,mode=755")
    os.mkdir("/tmp")
    _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, f"size={tmp_bytes},nr_inodes=1000,mode=1777")
    _check(_libc.umount2(b"/old", _MNT_DETACH))
    os.rmdir("/old")
    _mount("none", "/", "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    os.chdir("/tmp")
    return True


def restrict_files(readable: Sequence[str], hidden: Sequence[str], has_private_root: bool) -> bool:
    """Allow reading what Python needs, and writing only in the private /tmp. Return False without Landlock."""
    if landlock.version() == 0:
        return False
    if has_private_root:
        rules = [(path, _READ) for path in (*readable, "/")] + [("/tmp", ~0)]
    else:
        rules = [rule for path in readable for rule in _reading(path, hidden)]
    try:
        landlock.restrict([*rules, ("/dev/null", _READ | landlock.WRITE_FILE)])
    except OSError:
        return False
    return True


def become_unprivileged(readable: Sequence[str], has_private_root: bool) -> bool:
    """Give up root, its groups, and every capability. Return whether the user is not root any more.

    If only root can read Python's folder and there is no private root, root stays root, without capabilities.
    """
    was_root = os.geteuid() == 0
    others_reach_python = has_private_root or all(_is_open_to_all(path) for path in readable)
    if was_root and others_reach_python:
        os.setgroups([])
        try:
            _become(_UNUSED_IDS + os.getpid() % 2**20)
        except OSError:  # a container may have only 65,536 user ids
            _become(_NOBODY)
    _drop_capabilities()
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # so that a crash does not start the machine's handler of core dumps
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return os.geteuid() != 0


def adopt_orphans() -> None:
    """Make this process the parent of its descendants whose own parent dies, so that it can end them too."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies. Call it after a change of user, which would undo it."""
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


def limit(memory_bytes: int, cpu_s: int, file_bytes: int) -> None:
    """Limit this process permanently."""
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_STACK: 64 * 2**20,  # programs that recurse deeply
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for name, value in limits.items():
        _lower(name, value)


def lock(active: frozenset[str], max_threads: int) -> None:
    """Take the last step, right before untrusted code. Raises OSError if seccomp refuses its filter.

    Threads are allowed if their number can be limited: the kernel counts them by user, so no other process may have
    this user. Without seccomp, which distinguishes threads from processes, neither is allowed, because nothing limits
    the time of a new process.
    """
    die_with_parent()
    is_own_user = "unprivileged" in active and ("namespaces" in active or os.geteuid() >= _UNUSED_IDS)
    if is_own_user:
        _lower(resource.RLIMIT_NPROC, max_threads if "seccomp" in active else 1)
    if "seccomp" in active:
        seccomp.install(allow_threads=is_own_user)


def _show(path: str) -> None:
    """Bind one of the old tree's files or folders, read-only, at the same path."""
    flags = _MS_NOSUID
    if os.path.isdir(f"/old{path}"):
        os.makedirs(path)
        flags |= _MS_RDONLY | _MS_NODEV
    else:  # a device
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write(path, "")
    _mount(f"/old{path}", path, "", _MS_BIND)
    _mount("none", path, "", _MS_REMOUNT | _MS_BIND | flags | _locked_flags(path))


def _locked_flags(path: str) -> int:
    """Return the flags of a path's mount that a user namespace must not remove."""
    flags = os.statvfs(path).f_flag
    relative_times = _MS_RELATIME if flags & _ST_RELATIME else 0
    return flags & (_MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME | _MS_NODIRATIME) | relative_times


def _reading(path: str, hidden: Sequence[str]) -> list[tuple[str, int]]:
    """Return the rules to read everything below a path except hidden folders. A rule cannot remove rights again."""
    if path in hidden:
        return []
    if not any(folder.startswith(f"{path}/") for folder in hidden):
        return [(path, _READ)]
    inside = [rule for child in os.listdir(path) for rule in _reading(f"{path}/{child}", hidden)]
    return [(path, landlock.READ_DIR), *inside]


def _is_open_to_all(path: str) -> bool:
    while path != "/":
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & 0o001:
            return False
    return True


def _become(identity: int) -> None:
    os.setresgid(identity, identity, identity)
    os.setresuid(identity, identity, identity)


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()))


def _lower(name: int, value: int) -> None:
    _, hard = resource.getrlimit(name)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(name, (value, value))


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(_libc.mount(*arguments))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
