"""GitHub's step summary: Markdown added to the file that GITHUB_STEP_SUMMARY names."""

from __future__ import annotations

import os

from blaster.errors import BlasterError, UsageError

VARIABLE = "GITHUB_STEP_SUMMARY"
MAX_BYTES = 1 << 20
"""What GitHub takes of one step."""


def check() -> None:
    """Raises UsageError where there is no such file to add to."""
    if not os.environ.get(VARIABLE):
        raise UsageError(
            f"--github-summary: the variable {VARIABLE} is not set; it is within a GitHub workflow"
        )


def add(markdown: str) -> None:
    """Adds the text to the step's summary, cut where GitHub would refuse it."""
    data = markdown.encode()
    if len(data) > MAX_BYTES:
        data = data[: MAX_BYTES - 64].decode(errors="ignore").encode() + b"\n\n(cut here)\n"
    try:
        with open(os.environ[VARIABLE], "ab") as file:
            file.write(data)
    except OSError as error:
        raise BlasterError(
            f"--github-summary: {os.environ[VARIABLE]} cannot be written ({error.strerror})"
        ) from None
