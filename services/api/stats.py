"""How many calls wait, run and have ended, over all replicas?"""

from shared import keys, streams


class Stats:
    """Counts, from Redis."""

    def __init__(self, outbox: streams.Outbox) -> None:
        """Ask through `outbox`."""
        self._outbox = outbox

    async def counts(self) -> dict[str, int]:
        """Return the counts by their public names. Raises `Unavailable`."""
        send = self._outbox.send
        waiting = (("XLEN", keys.CALLS_SYNC), ("XLEN", keys.CALLS_ASYNC))
        asked = [send(command) for command in (*waiting, ("ZCARD", keys.RETRIES_DUE))]
        complete = send(("GET", keys.COMPLETE))
        lent = send(("ZCARD", keys.TASKS_DUE))
        runners = await send(("HKEYS", keys.RUNNERS))
        held = [send(("XLEN", keys.runner(name.decode()))) for name in runners]
        return {
            "Queue": sum([await length for length in asked]),
            "Running": sum([await length for length in held]) + int(await lent),
            "Complete": int(await complete or 0),
        }
