"""How does a function come here from AWS Lambda? `fn lambda aws-import`."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import zipfile
from pathlib import Path

import click
import urllib3

from fn import building, funcfields, funcfile, hubs, lambdas, output, pairs
from fn.commanding import LazyGroup, examples
from fn.commands.init import text_of
from fn.errors import Exit, FnError
from fn.lambdas import Lambda

_OK = 200


@click.group("lambda", cls=LazyGroup, epilog=examples("fn lambda aws-import ARN eu-west-1 me/old"))
def lambda_() -> None:
    """Bring functions here from AWS Lambda."""


@lambda_.command(
    "aws-import",
    epilog=examples(
        "fn lambda aws-import arn:aws:lambda:eu-west-1:123456789012:function:old eu-west-1 me/old",
        "fn lambda aws-import old eu-west-1 me/old --zip old.zip --runtime python3.9 --handler a.b",
    ),
)
@click.argument("arn")
@click.argument("region")
@click.argument("image")
@click.option("--payload", default="{}", show_default=True, help="An event; its test sends it.")
@click.option("--version", default="$LATEST", show_default=True, help="Version of the function.")
@click.option("--download-only", is_flag=True, help="Only get its code.")
@click.option("--config", multiple=True, metavar="KEY=VALUE", help="More config for it.")
@click.option(
    "--zip",
    "archive",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its code, downloaded before: AWS is not asked.",
)
@click.option("--runtime", default="", help="With --zip: Lambda's name of it, like python3.9.")
@click.option("--handler", default="", help="With --zip: module.function.")
def aws_import(
    arn: str,
    region: str,
    image: str,
    *,
    payload: str,
    version: str,
    download_only: bool,
    config: tuple[str, ...],
    archive: Path | None,
    runtime: str,
    handler: str,
) -> None:
    """Make a function here of one of AWS Lambda: its code, an adapter, func.yaml, the image.

    Asks AWS by its own command `aws`, with the credentials that it knows.
    """
    try:
        name = funcfields.name(image)
    except funcfields.Wrong as error:
        raise FnError(f"the image's name {error}", error.hint) from None
    if archive:
        found, code = Lambda(runtime, handler), archive.read_bytes()
    else:
        found = _asked(arn, region, version)
        code = _downloaded(found.location)
    found = dataclasses.replace(
        found, environment={**found.environment, **pairs.config(config, os.environ)}
    )
    folder = Path(name.rpartition("/")[2])
    made = None if download_only else lambdas.adapter(found)
    _unpack(code, folder)
    if made is None:
        output.show({"folder": str(folder)}, "", f"{folder} has its code")
        return
    language, file_name, text = made
    if (folder / file_name).exists():
        raise FnError(
            f"{folder / file_name} is there already, and the adapter has that name",
            "Rename it, and the module in its handler.",
            Exit.REFUSED,
        )
    (folder / file_name).write_text(text, encoding="utf-8")
    described = text_of(lambdas.fields(found, name, language, payload))
    (folder / "func.yaml").write_text(described, encoding="utf-8")
    file = funcfile.load(folder)
    built = building.build(file, file.version, building.Options(hubs.address(file)))
    output.show(
        {"folder": str(folder), "image": built}, "", f"Function {built} built successfully."
    )


def _asked(arn: str, region: str, version: str) -> Lambda:
    """Return what AWS says of a function. Raises `FnError` without its command or credentials."""
    command = ["aws", "lambda", "get-function", "--function-name", arn, "--region", region]
    try:
        done = subprocess.run(
            [*command, "--qualifier", version, "--output", "json"], capture_output=True, check=False
        )
    except FileNotFoundError as error:
        raise FnError(
            "asking AWS needs its command `aws`, and it is not here",
            "Install it (apt-get install awscli), or download the code yourself: --zip FILE.",
            Exit.UNREACHABLE,
        ) from error
    if done.returncode:
        words = done.stderr.decode(errors="replace").split()
        raise FnError(
            f"aws: {' '.join(words)}", "`aws configure` sets credentials.", Exit.UNAUTHORIZED
        )
    return lambdas.described(json.loads(done.stdout))


def _downloaded(location: str) -> bytes:
    try:
        answer = urllib3.PoolManager().request("GET", location)
    except urllib3.exceptions.HTTPError as error:
        raise FnError(f"cannot download its code: {error}", "", Exit.UNREACHABLE) from error
    if answer.status != _OK:
        raise FnError(f"cannot download its code: status {answer.status}", "", Exit.UNREACHABLE)
    return answer.data


def _unpack(code: bytes, folder: Path) -> None:
    if folder.exists():
        raise FnError(f"{folder} is there already", "Move it away first.", Exit.REFUSED)
    try:
        with zipfile.ZipFile(io.BytesIO(code)) as archive:
            archive.extractall(folder)
    except zipfile.BadZipFile as error:
        raise FnError("its code is no ZIP archive", "Is it an image? Then deploy that.") from error
