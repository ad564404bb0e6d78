"""A function that tries to reach what started it; it answers with what came of each try."""

import ctypes
import json
import os
import signal
import socket

PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
PIDFD_OPEN, PIDFD_GETFD, UNSHARE = 434, 438, 272
NEW_USER, NEW_NAMESPACE, REMOUNT, BIND = 0x10000000, 0x00020000, 32, 4096
FOLDER = "/.millrace"
libc = ctypes.CDLL(None, use_errno=True)


class Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def system(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
    return "done"


def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), number)
    return result


def read_memory():
    buffer = ctypes.create_string_buffer(8)
    here = Vector(ctypes.addressof(buffer), 8)
    there = Vector(0x400000, 8)
    return system("process_vm_readv", 1, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)


def steal(fd):
    return call(PIDFD_GETFD, call(PIDFD_OPEN, 1, 0), fd, 0)


def connect():
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(f"{FOLDER}/socket")


def write(path):
    with open(path, "r+b") as file:
        file.write(b"mine")


def read(path):
    with open(path, "rb") as file:
        return file.read(16).decode("latin-1")


TRIES = {
    "attach": lambda: system("ptrace", PTRACE_ATTACH, 1, None, None),
    "seize": lambda: system("ptrace", PTRACE_SEIZE, 1, None, None),
    "read memory": read_memory,
    "open memory": lambda: read("/proc/1/mem"),
    "see environment": lambda: read("/proc/1/environ"),
    "see maps": lambda: read("/proc/1/maps"),
    "list files": lambda: os.listdir("/proc/1/fd"),
    "see files": lambda: os.listdir("/proc/1/fdinfo"),
    **{f"open file {fd}": lambda fd=fd: os.open(f"/proc/1/fd/{fd}", os.O_RDWR) for fd in range(9)},
    **{f"steal file {fd}": lambda fd=fd: steal(fd) for fd in range(9)},
    "see program": lambda: os.readlink("/proc/1/exe"),
    "connect": connect,
    "change init": lambda: write(f"{FOLDER}/init"),
    "remove init": lambda: os.unlink(f"{FOLDER}/init"),
    "move init": lambda: os.rename(f"{FOLDER}/init", f"{FOLDER}/moved"),
    "add a file": lambda: os.mkdir(f"{FOLDER}/mine"),
    "remount": lambda: system("mount", b"none", FOLDER.encode(), None, REMOUNT | BIND, None),
    "unmount": lambda: system("umount2", FOLDER.encode(), 2),
    "become root of a namespace": lambda: call(UNSHARE, NEW_USER | NEW_NAMESPACE),
}


def outcome(what):
    try:
        return f"done: {what()}"
    except OSError as error:
        return os.strerror(error.errno)


def main():
    open_files = sorted(os.listdir("/proc/self/fd"), key=int)[:-1]
    found = {name: outcome(what) for name, what in TRIES.items()}
    for number in signal.valid_signals():
        os.kill(1, number)
    processes = sorted(name for name in os.listdir("/proc") if name.isdigit())
    seen = {"tries": found, "files": open_files, "processes": len(processes), "user": os.getuid()}
    print(json.dumps(seen))


main()
