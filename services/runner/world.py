"""What does a runner act on? Only names it; built in `__main__`."""

from dataclasses import dataclass

from services.runner.engine import Engine
from services.runner.holders import Holders
from services.runner.images import Images
from services.runner.sandbox import Sandboxes
from shared import streams


@dataclass(frozen=True, slots=True)
class World:
    """What the runner acts on."""

    redis: streams.Redis
    outbox: streams.Outbox
    engine: Engine
    images: Images
    holders: Holders
    sandboxes: Sandboxes
