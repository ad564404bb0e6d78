"""What does a Twitter that is asked for a timeline answer? One on this machine, for the example.

It shows tweets to those alone whose request is signed as RFC 5849 says; see `oauth1`.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.e2e import oauth1

BASE = "/1.1"
CONFIG = {
    "CUSTOMER_KEY": "customer",
    "CUSTOMER_SECRET": "customer's+secret/=&",
    "ACCESS_TOKEN": "7-token",
    "ACCESS_SECRET": "token's/secret%2F",
}


def tweet(author: str, text: str, **fields: Any) -> dict[str, Any]:
    """Return a tweet as the API tells it, or what of it matters here."""
    return {
        "id": 20,
        "user": {"name": author, "screen_name": author.lower()},
        "text": text,
        **fields,
    }


@dataclass
class Twitter:
    """The API: whom it knows, whom it refused and why."""

    accounts: dict[str, list[dict[str, Any]]]
    verifier: oauth1.Verifier = field(
        default_factory=lambda: oauth1.Verifier(
            {CONFIG["CUSTOMER_KEY"]: CONFIG["CUSTOMER_SECRET"]},
            {CONFIG["ACCESS_TOKEN"]: CONFIG["ACCESS_SECRET"]},
        )
    )
    refusals: list[str] = field(default_factory=list)
    #: Set while it is busy: the status it then answers with.
    busy: int = 0

    async def timeline(self, request: web.Request) -> web.Response:
        """Answer `GET statuses/user_timeline.json`."""
        said = oauth1.Request(
            request.method,
            "http",
            request.headers["Host"],
            request.raw_path,
            request.headers.get("Authorization", ""),
        )
        try:
            self.verifier.check(said, int(time.time()))
        except oauth1.Refused as refusal:
            self.refusals.append(str(refusal))
            return problem(401, 32, "Could not authenticate you.")
        if self.busy:
            return problem(self.busy, 88, "Rate limit exceeded")
        tweets = self.accounts.get(request.query["screen_name"])
        if tweets is None:
            return problem(404, 34, "Sorry, that page does not exist.")
        return web.json_response(tweets)


def problem(status: int, code: int, message: str) -> web.Response:
    """Return an error of the API."""
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status)
