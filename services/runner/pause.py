"""What runs in a container that only keeps a network namespace? Pure: a tiny image.

The runner loads it into the engine itself, so that no registry is needed. It is one static
program that sleeps for ever. The bytes depend on nothing but the architecture, so that replicas
which load it at the same time load the same image.
"""

import hashlib
import io
import json
import struct
import tarfile

NAME = "millrace/pause:1"

_LOAD_ADDRESS = 0x400000
_HEADERS_SIZE = 64 + 56
#: Architecture, as images name it -> ELF machine, and the program: a system call that waits for
#: ever, and a jump back to it in case a signal ends the wait.
_PROGRAMS = {
    # mov eax, 34 (pause); syscall; jmp to the start
    "amd64": (62, bytes.fromhex("b822000000 0f05 ebf7")),
    # ppoll(NULL, 0, NULL, NULL): mov x0..x3, #0; mov x8, #73; svc #0; b to the start
    "arm64": (
        183,
        struct.pack(
            "<7I",
            0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003, 0xD2800928, 0xD4000001, 0x17FFFFFA,
        ),
    ),
}  # fmt: skip


def architectures() -> tuple[str, ...]:
    """Return the architectures there is a program for."""
    return tuple(_PROGRAMS)


def program(arch: str) -> bytes:
    """Return the ELF file for an architecture of `architectures()`."""
    machine, code = _PROGRAMS[arch]
    size = _HEADERS_SIZE + len(code)
    entry = _LOAD_ADDRESS + _HEADERS_SIZE
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x1000)
    return ident + header + segment + code


def image(arch: str) -> bytes:
    """Return the image as `docker load` takes it: a tar with one layer."""
    layer = _tar({"pause": (program(arch), 0o755)})
    config = json.dumps(
        {
            "architecture": arch,
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Entrypoint": ["/pause"], "User": "65534:65534"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    files = {
        "config.json": (config, 0o644),
        "layer.tar": (layer, 0o644),
        "manifest.json": (json.dumps(manifest).encode(), 0o644),
    }
    return _tar(files)


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """Return a tar of files by name: content and mode; times and owners are zero."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (content, mode) in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()
