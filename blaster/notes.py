"""The notes of a run: what there is to say of it beside its figures."""

from __future__ import annotations

from blaster.engine.results import Results
from blaster.payload.capture.batch_capture import BatchCapture
from blaster.payload.capture.capture import Capture


def notes_of(
    results: Results, captured: Capture | None, recording: BatchCapture | None
) -> list[str]:
    """The notes, a line each."""
    notes = [note for asked in results.verification for note in asked.summary_lines()]
    if results.interrupted and not results.spans.scheduled:
        notes.append("interrupted before the first span was offered")
    notes += [str(mark) for mark in results.faults]
    if results.configuration.insecure_skip_verify:
        notes.append("the server's certificate was not verified, as asked for")
    if captured is not None:
        notes += [f"template {captured.path}: {note}" for note in captured.notes]
    if recording is not None:
        notes.append(f"recorded {recording.summary()}")
    return notes
