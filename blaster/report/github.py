"""GitHub's step summary: Markdown appended to the file that GITHUB_STEP_SUMMARY names."""

from __future__ import annotations

import os

from blaster.errors import BlasterError, UsageError

VARIABLE = "GITHUB_STEP_SUMMARY"
MAX_BYTES = 1 << 20
"""GitHub's limit for the summary of one step."""


def check() -> None:
    """Raise UsageError if there is no such file."""
    if not os.environ.get(VARIABLE):
        raise UsageError(
            f"--github-summary: the variable {VARIABLE} is not set; GitHub sets it in workflows"
        )


def add(markdown: str) -> None:
    """Append the text to the step's summary, cut to GitHub's limit."""
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
