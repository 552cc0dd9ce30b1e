"""The output of ``blaster send``: plain lines."""

from __future__ import annotations

from blaster.send import SentSpan
from blaster.text import clean


def show_sent(sent: SentSpan) -> None:
    """Print the span's IDs and the outcome of its request."""
    print(f"trace {sent.trace_id.hex()}")
    print(f"span  {sent.span_id.hex()}")
    why = f": {sent.message}" if sent.message else ""
    print(clean(f"sent to {sent.endpoint}: {sent.status}{why}"), flush=True)


def show_answers(sent: SentSpan) -> None:
    """Print the findings of each backend."""
    if sent.answers is None:
        return
    for stage in sent.answers.stages:
        seen = "not known" if stage.spans is None else f"{stage.spans:,} {stage.unit}"
        why = f" ({stage.reason})" if stage.reason else ""
        print(clean(f"{stage.stage}: {seen}{why}"))
    for asked in sent.answers.verifications:
        for line in (*asked.problems, *asked.summary_lines()):
            print(clean(f"  {line}"))
