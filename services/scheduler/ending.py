"""What is written when the scheduler itself ends a call? Pure: the record and the reply."""

from shared import messages, scripts
from shared.messages import CallHead, Status


def ended(
    stream: str,
    entry_id: bytes,
    head: CallHead,
    failed: messages.Failed | None,
    *,
    now_ms: int,
    runner_id: str = "",
) -> scripts.Command:
    """Return the command that ends a call: failed, or (None) cancelled by its caller's leaving.

    A failed sync call gets a reply; a caller who left gets none.
    """
    status: Status = "error" if failed else "cancelled"
    record = messages.Record(
        call_id=head.call_id,
        status=status,
        mode=head.mode,
        app=head.app,
        path=head.path,
        image=head.image,
        queued_ms=head.accepted_ms,
        finished_ms=now_ms,
        code=failed.code if failed else "cancelled",
        message=failed.message if failed else "the caller left before the call had a runner",
        runner_id=runner_id,
        attempt=head.attempt,
    )
    reply = messages.Reply(head.call_id, failed) if failed else None
    return scripts.end(stream, entry_id, record, reply, head.reply_to, counted=head.counted)
