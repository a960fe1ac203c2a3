"""Takes from the current process what a decoder does not need: the network, and the sight of other processes.

Each step is one that Linux lets an ordinary user take; where it does not, the process runs without that step.
docs/security.md says what holds where.
"""

import ctypes
import errno
import os
import platform
import signal
import struct

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
# system calls without a function in libc; their numbers are the same on all machines
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF, LANDLOCK_ACCESS_FS_MAKE_BLOCK = 444, 446, 1 << 11
# the AUDIT_ARCH of each machine, and its numbers of socket, ptrace, process_vm_readv, process_vm_writev,
# io_uring_setup (which could open sockets) and pidfd_getfd (which could take them from the parent)
FORBIDDEN = {
    "x86_64": (0xC000003E, (41, 101, 310, 311, 425, 438)),
    "aarch64": (0xC00000B7, (198, 117, 270, 271, 425, 438)),
}
X32 = 0x40000000  # x86_64 calls with this bit have other numbers
# classic BPF: load a word of seccomp_data, jump if equal, jump if any of the bits is set, return
LOAD, JUMP_EQUAL, JUMP_SET, RETURN = 0x20, 0x15, 0x45, 0x06
CALL_NUMBER, ARCHITECTURE = 0, 4  # offsets in seccomp_data
ALLOW, DENY = 0x7FFF0000, 0x00050000 | errno.EPERM


def isolate() -> None:
    """Isolate this process, which must have one thread only, and have it killed when its parent ends."""
    libc = ctypes.CDLL(None)
    libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # an ordinary user needs it for the next two
    _hide_other_processes(libc)
    _forbid_calls(libc)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after unshare, which resets it


def _hide_other_processes(libc: ctypes.CDLL) -> None:
    """Enter a Landlock domain, which has no access to the memory and environment of processes outside.

    A domain has to restrict something: this one does not let the process make block devices.
    """
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, struct.pack("Q", LANDLOCK_ACCESS_FS_MAKE_BLOCK), 8, 0)
    if ruleset >= 0:
        libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)


def _forbid_calls(libc: ctypes.CDLL) -> None:
    """A seccomp filter that makes system calls for sockets and other processes' memory fail with EPERM."""
    if platform.machine() not in FORBIDDEN:
        return
    architecture, calls = FORBIDDEN[platform.machine()]
    deny = len(calls) + 1  # instructions from the first comparison to the last, the one that denies
    program = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 0, deny + 2, architecture),
        (LOAD, 0, 0, CALL_NUMBER),
        (JUMP_SET, deny, 0, X32),
        *((JUMP_EQUAL, deny - 1 - i, 0, call) for i, call in enumerate(calls)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, DENY),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter_program = struct.pack("HP", len(program), ctypes.addressof(code))
    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_program, 0, 0)
