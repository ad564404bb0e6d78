"""What is written when the scheduler itself ends a call? Pure: the record and the reply."""

from shared import messages, retrying, scripts
from shared.messages import CallHead, Status


def lost(head: CallHead) -> scripts.Command:
    """Return the command that tells a sync call's caller that the call is lost.

    What is recorded of it is for its api replica to say: only that knows whether somebody waits.
    """
    failed = messages.Failed("call_lost", "Redis has lost this call; it may have run")
    return scripts.reply_lost(head.reply_to, messages.Reply(head.call_id, failed))


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

    A failed sync call gets a reply; a caller who left gets none. A failed async call is kept as a
    dead letter.
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
        callback=head.callback,
    )
    if failed and retrying.is_kept(head, failed.code):
        return scripts.bury(stream, entry_id, record)
    reply = messages.Reply(head.call_id, failed) if failed else None
    return scripts.end(
        stream, entry_id, record, reply, head.reply_to, once=head.once, counted=head.counted
    )
