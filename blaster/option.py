"""Options of the command line, declared at the fields that take their values."""

from __future__ import annotations

from dataclasses import dataclass

TARGET = "Target"
LOAD = "Load"
WORKLOAD = "Workload"
SENDERS = "Workers and connections"
TRANSPORT = "Transport"
SEARCH = "Search"
PASS_FAIL = "Pass or fail"
VERIFY = "Verify"
OBSERVE = "Observe"
FAULTS = "Faults"
CLUSTER = "Cluster"
OUTPUT = "Output"

GROUPS = (
    *(TARGET, LOAD, WORKLOAD, SENDERS, TRANSPORT, SEARCH, PASS_FAIL),
    *(VERIFY, OBSERVE, FAULTS, CLUSTER, OUTPUT),
)
"""The panels of a help page, in their order."""


@dataclass(frozen=True, slots=True)
class Option:
    """How a dataclass's field stands on the command line.

    A field ``Annotated[str | None, Option("Trial duration")]`` is an option called as the field is,
    or ``name``. ``group``: the panel of the help page; empty: the general one. ``short``: a letter,
    such as ``-q``. Fields without an Option are no options.
    """

    help: str
    group: str = ""
    name: str | None = None
    short: str | None = None


@dataclass(frozen=True, slots=True)
class Argument:
    """How a dataclass's field stands on the command line where it is an argument."""

    help: str
