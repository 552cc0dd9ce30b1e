"""The manual's pages, by topic."""

from __future__ import annotations

from importlib.resources import files

from blaster.errors import UsageError

TOPICS = (
    "start",
    "concepts",
    "load",
    "workloads",
    "transports",
    "backends",
    "verification",
    "verdict",
    "capacity",
    "faults",
    "sink",
    "reports",
    "ci",
    "clusters",
    "profiling",
    "results",
    "reference",
)
"""In the order in which a reader needs them."""


def read(topic: str) -> str:
    """Return a page's Markdown. Raises UsageError, listing the topics, where there is none."""
    if topic not in TOPICS:
        raise UsageError(f"guide {topic!r}: no such topic; there are: {', '.join(TOPICS)}")
    return files("blaster.guide").joinpath(f"{topic}.md").read_text(encoding="utf-8")


def description(topic: str) -> str:
    """Return what a page is about: its first heading, ``# TOPIC: DESCRIPTION``, from the colon on.

    Raises UsageError as read does.
    """
    return read(topic).partition("\n")[0].partition(": ")[2]
