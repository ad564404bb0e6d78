"""What does the OpenAPI document say? What handlers say of themselves, made of the schemas.

A handler is decorated with `operation`; the document is made of the application's routes.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import marshmallow as ma
from aiohttp import web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin

from services.api import schemas
from services.api.middleware import is_management

Handler = TypeVar("Handler", bound=Callable[[web.Request], Awaitable[web.StreamResponse]])

#: What a handler for any method is documented with.
_ANY = ("get", "head", "post", "put", "patch", "delete", "options")


@dataclass(frozen=True, slots=True)
class Query:
    """A query parameter, or a header."""

    name: str
    kind: str
    sentence: str
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure of a management request; `words` is its message."""

    words: str


@dataclass(frozen=True, slots=True)
class CallProblem:
    """A failure of a call."""

    words: str


@dataclass(frozen=True, slots=True)
class Raw:
    """A body that is no JSON of ours."""

    words: str
    content_type: str = "*/*"


@dataclass(frozen=True, slots=True)
class Nullable:
    """The answer of a schema, or null."""

    schema: type[ma.Schema]


Answer = type[ma.Schema] | Problem | CallProblem | Raw | Nullable


@dataclass(frozen=True, slots=True)
class Operation:
    """What one handler does."""

    summary: str
    tag: str
    answers: Mapping[int, Answer]
    query: Iterable[Query] = ()
    #: A schema of the body; or text or bytes of any kind; None: it takes none.
    body: type[ma.Schema] | Raw | None = None


_documented: dict[Any, Operation] = {}


def operation(
    summary: str,
    *,
    tag: str,
    answers: Mapping[int, Answer],
    query: Iterable[Query] = (),
    body: type[ma.Schema] | Raw | None = None,
) -> Callable[[Handler], Handler]:
    """Document a handler: what it does in one sentence, what it takes, and what it answers.

    Path parameters, and failures that all management requests share, are added by `document`.
    """

    def decorated(handler: Handler) -> Handler:
        _documented[handler] = Operation(summary, tag, answers, query, body)
        return handler

    return decorated


def document(
    app: web.Application,
    *,
    version: str,
    server: str,
    undecorated: Mapping[str, Operation],
) -> dict[str, Any]:
    """Return the OpenAPI 3 document of an application's routes.

    `undecorated` has, by path, what is not documented at its handler.
    """
    spec = APISpec(
        title="Millrace",
        version=version,
        openapi_version="3.1.0",
        info={"description": "Any container image becomes an HTTP function."},
        servers=[{"url": server}],
        plugins=[MarshmallowPlugin()],
    )
    spec.components.security_scheme(
        "token", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    )
    for resource in app.router.resources():
        paths: dict[str, Any] = {}
        for route in resource:
            told = _documented.get(route.handler) or undecorated.get(resource.canonical)
            if told is not None:
                methods = _ANY if route.method == "*" else (route.method.lower(),)
                paths |= {m: _operation(m, resource.canonical, told) for m in methods}
        if paths:
            spec.path(resource.canonical, operations=paths, parameters=_path_parameters(resource))
    return dict(spec.to_dict())


def _path_parameters(resource: web.AbstractResource) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in resource.canonical.split("/") if part.startswith("{")]
    return [
        {"in": "path", "name": name, "required": True, "schema": {"type": "string"}}
        for name in names
    ]


def _operation(method: str, path: str, told: Operation) -> dict[str, Any]:
    words = "_".join(part.strip("{}") for part in path.split("/") if part)
    documented: dict[str, Any] = {
        "operationId": f"{method}_{words}".rstrip("_"),
        "summary": told.summary,
        "tags": [told.tag],
        "parameters": [_query(query) for query in told.query],
        "responses": {str(s): _answer(s, a) for s, a in _all_answers(path, told).items()},
    }
    if told.body is not None and method not in {"get", "head"}:
        needed = not isinstance(told.body, Raw)
        documented["requestBody"] = {"required": needed, "content": _content(told.body)}
    if is_management(path):
        documented["security"] = [{}, {"token": []}]
    return documented


def _all_answers(path: str, told: Operation) -> dict[int, Answer]:
    if not is_management(path):
        return dict(told.answers)
    shared: dict[int, Answer] = {
        401: schemas.TokenProblemAnswer,
        500: Problem("Something unexpected happened on the server"),
        503: Problem("MySQL or Redis does not answer; see Retry-After"),
    }
    return dict(sorted({**shared, **told.answers}.items()))


def _query(query: Query) -> dict[str, Any]:
    return {
        "in": query.place,
        "name": str(query.name),
        "description": query.sentence,
        "schema": {"type": query.kind},
    }


def _answer(status: int, answer: Answer) -> dict[str, Any]:
    match answer:
        case Problem(words) | CallProblem(words) | Raw(words):
            description = words
        case Nullable(schema):
            description = f"{_sentence(schema)} Or null."
        case _:
            description = _sentence(answer)
    return {"description": description or HTTPStatus(status).phrase, "content": _content(answer)}


def _sentence(schema: type[ma.Schema]) -> str:
    return (schema.__doc__ or "").partition("\n")[0]


def _content(answer: Answer) -> dict[str, Any]:
    match answer:
        case Raw(content_type=content_type):
            return {content_type: {"schema": {"type": "string", "format": "binary"}}}
        case Problem():
            return {"application/json": {"schema": schemas.ProblemAnswer}}
        case CallProblem():
            return {"application/json": {"schema": schemas.CallProblemAnswer}}
        case Nullable(schema):
            return {"application/json": {"schema": {"oneOf": [schema, {"type": "null"}]}}}
        case _:
            return {"application/json": {"schema": answer}}
