"""``deny_calls.py NUMBER... -- COMMAND...``: the command, and all that it starts, are refused these system calls.

A stand-in for what a container's seccomp profile does; the calls really fail.
"""

import ctypes
import errno
import os
import sys

LOAD, EQUAL, RETURN, ALLOW, ERRNO = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000


class Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


separator = sys.argv.index("--")
instructions = [Instruction(LOAD, 0, 0, 0)]
for number in sys.argv[1:separator]:
    instructions += [Instruction(EQUAL, 0, 1, int(number)), Instruction(RETURN, 0, 0, ERRNO | errno.EPERM)]
array = (Instruction * (len(instructions) + 1))(*instructions, Instruction(RETURN, 0, 0, ALLOW))
program = Program(len(array), ctypes.cast(array, ctypes.c_void_p))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(program)) == 0  # PR_SET_SECCOMP
os.execv(sys.argv[separator + 1], sys.argv[separator + 1 :])
