"""Which identity does a call or a process get? Knows nothing of what bears it."""

import secrets
import socket

import uuid_utils


def new_call_id() -> str:
    """Return a new UUID, version 7 (RFC 9562): unique, and sorting as text by its time."""
    return str(uuid_utils.uuid7())


def call_time_ms(call_id: str) -> int | None:
    """Return when `call_id` was made, in epoch milliseconds; None if it is no UUIDv7.

    >>> call_time_ms("01938f6e-0000-7000-8000-000000000000")
    1733278171136
    """
    try:
        parsed = uuid_utils.UUID(call_id)
    except ValueError:
        return None
    return parsed.int >> 80 if parsed.version == 7 else None  # noqa: PLR2004 (RFC 9562, 5.7)


def new_process_id(role: str, name: str = "") -> str:
    """Return an id for one start of a process: a restart is a new process.

    A name, the host's if none is given, is in it for the operator's eyes; the random part makes it
    unique.
    """
    return f"{role}-{name or host_name()}-{secrets.token_hex(4)}"


def host_name() -> str:
    """Return what this machine, or this container, calls itself."""
    return socket.gethostname()
