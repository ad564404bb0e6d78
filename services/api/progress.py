"""How far has a call got, by several records of it? Pure.

Records of a call arrive in any order and more than once: it waits, it runs, it ended. A call
gets on by attempts, so the rank of a record is `2 * attempt`, one more if it runs, and above all
of them if it ended. A record of a higher rank wins, field by field: what it does not know, the
lower one still tells. Of two records of the same rank the first stays as it is. How earlier
attempts failed is gathered of all.

Example: running (attempt 1, started 100), then ended (success, finished 180, no start), then the
first record once more, come to: success, started 100, finished 180.
"""

from collections.abc import Iterable

import msgspec

from shared import messages

ENDED_RANK = 1_000_000

#: What a record may not know, and the value that says so.
_UNKNOWN = {
    "started_ms": None,
    "finished_ms": None,
    "code": "",
    "message": "",
    "exit_code": None,
    "digest": "",
    "runner_id": "",
    "peak_memory_bytes": None,
    "redrive_of": "",
    "log": b"",
    "result": None,
    "callback": None,
}


def rank(record: messages.Record) -> int:
    """Return how far this record says that the call has got."""
    if record.status in messages.ENDED:
        return ENDED_RANK
    return 2 * record.attempt + (record.status == "running")


def merge(older: messages.Record, newer: messages.Record) -> messages.Record:
    """Return what two records of one call come to; `older` arrived first."""
    if newer.failures and newer.failures != older.failures:
        older = msgspec.structs.replace(older, failures=_all_failures(older, newer))
    if rank(newer) == rank(older):
        return older
    winner, other = (newer, older) if rank(newer) > rank(older) else (older, newer)
    gaps: dict[str, object] = {
        name: getattr(other, name)
        for name, unknown in _UNKNOWN.items()
        if getattr(winner, name) == unknown
    }
    if older.failures:
        gaps["failures"] = older.failures
    return msgspec.structs.replace(winner, **gaps)


def _all_failures(older: messages.Record, newer: messages.Record) -> tuple[messages.Attempt, ...]:
    """Return what both know of earlier attempts; of one attempt the first word stays."""
    known = {failure.number: failure for failure in (*newer.failures, *older.failures)}
    return tuple(known[number] for number in sorted(known))


def merged(records: Iterable[messages.Record]) -> list[messages.Record]:
    """Return one record for each call, in the order of their ids, so that writers lock alike."""
    by_id: dict[str, messages.Record] = {}
    for record in records:
        known = by_id.get(record.call_id)
        by_id[record.call_id] = merge(known, record) if known else record
    return [by_id[call_id] for call_id in sorted(by_id)]
