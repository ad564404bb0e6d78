"""A function written with the Fn Project's kit for Python, as its users write them."""

import io
import json
import logging
import os
import sys

from fdk import context, response


def handler(ctx: context.InvokeContext, data: io.BytesIO) -> response.Response:
    body = data.getvalue()
    if not body.startswith(b"{"):
        return response.Response(
            ctx, response_data=body, headers={"Content-Type": "application/octet-stream"}
        )
    asked = json.loads(body)
    if asked["do"] == "hello":
        logging.getLogger().info("Inside Python Hello World function")
        return response.Response(
            ctx,
            response_data=json.dumps({"message": f"Hello {asked['name']}"}),
            headers={"Content-Type": "application/json"},
        )
    if asked["do"] == "context":
        seen = {
            "app": ctx.AppName(),
            "function": ctx.FnName(),
            "call_id": ctx.CallID(),
            "deadline": ctx.Deadline(),
            "format": ctx.Format(),
            "method": ctx.Method(),
            "url": ctx.RequestURL(),
            "headers": ctx.HTTPHeaders(),
            "config": ctx.Config().get("GREETING"),
        }
        return response.Response(
            ctx,
            response_data=json.dumps(seen),
            headers={"Content-Type": "application/json", "X-Made-By": "python"},
            status_code=201,
        )
    if asked["do"] == "log":
        sys.stderr.write(f"{asked['text']}\n")
        sys.stderr.flush()
        return response.Response(ctx, response_data="logged")
    if asked["do"] == "exit":
        os._exit(3)
    raise RuntimeError("the function's own error")
