"""What lets other programs manage the platform? `fn token`."""

from __future__ import annotations

import time

import click

from fn import contexts, output, tokens
from fn.commanding import examples
from fn.errors import Exit, FnError


@click.command(
    epilog=examples(
        "fn token",
        "fn token 60",
        'curl -H "Authorization: Bearer $(fn token)" http://localhost:8080/v1/apps',
    )
)
@click.argument("seconds", type=click.IntRange(1), default=tokens.LIFETIME_S)
def token(seconds: int) -> None:
    """Sign a management token with JWT_AUTH_KEY, good for an hour or so many SECONDS."""
    key = contexts.current().jwt_auth_key
    if not key:
        raise FnError(
            "there is no key to sign a token with",
            "Set JWT_AUTH_KEY to the platform's, or add it to a context",
            Exit.UNAUTHORIZED,
        )
    signed = {"token": tokens.sign(key, time.time(), seconds)}
    output.show(signed, signed["token"])
