"""Greets whom a call's body names, through the Fn Project's kit for Python."""

import io

from fdk import context, response


def greeting(name: str) -> str:
    """Return how a name is greeted; nobody in particular is the world."""
    return f"Hello, {name.strip() or 'World'}!\n"


def handler(ctx: context.InvokeContext, data: io.BytesIO) -> response.Response:
    """Answer one call."""
    text = greeting(data.getvalue().decode())
    return response.Response(ctx, response_data=text, headers={"Content-Type": "text/plain"})
