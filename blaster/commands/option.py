"""Commands whose options are the fields of dataclasses, and the options of several commands that no
dataclass takes."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any

import typer
from typer.models import OptionInfo

from blaster.option import GROUPS, OUTPUT, Argument, Option

Json = Annotated[
    str | None,
    typer.Option(
        "--json",
        help="Write the results to this file; - for standard output.",
        rich_help_panel=OUTPUT,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Markdown = Annotated[
    str | None,
    typer.Option(
        "--markdown",
        help="Write a Markdown report to this file; - for standard output.",
        rich_help_panel=OUTPUT,
    ),
]
Html = Annotated[
    str | None,
    typer.Option(
        "--html",
        help="Write a report with charts (HTML, opens offline) to this file; - likewise.",
        rich_help_panel=OUTPUT,
    ),
]
Csv = Annotated[
    str | None,
    typer.Option(
        "--csv",
        help="Write the series, a row a second, to this file; - likewise.",
        rich_help_panel=OUTPUT,
    ),
]
Junit = Annotated[
    str | None,
    typer.Option(
        "--junit",
        help="Write the verdict's checks as JUnit XML to this file; - likewise.",
        rich_help_panel=OUTPUT,
    ),
]
GithubSummary = Annotated[
    bool,
    typer.Option(
        "--github-summary",
        help="Add the Markdown report to GITHUB_STEP_SUMMARY.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress and no summary.", rich_help_panel=OUTPUT),
]
ListenHost = Annotated[str, typer.Option("--host", help="Address to listen on.")]


@dataclass(frozen=True, slots=True)
class Only:
    """Which fields of an options dataclass a command takes: ``Annotated[OtlpOptions, Only(…)]``."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


def expanded(command: Callable[..., Any]) -> Callable[..., Any]:
    """``command`` as typer can read it: each parameter that is an options dataclass stands for its
    fields that have an Option, which the command is given as one instance."""
    hints = typing.get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    taken: dict[str, tuple[type, list[str]]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        kind, only = _unwrapped(hints[name])
        if not (isinstance(kind, type) and is_dataclass(kind)):
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        options = list(_options(kind, only))
        taken[name] = kind, [option.name for option in options]
        parameters += options
    parameters.sort(key=lambda parameter: _place(parameter.annotation))

    @functools.wraps(command)
    def call(**given: Any) -> Any:
        for name, (kind, names) in taken.items():
            values = {field: given.pop(field) for field in names}
            given[name] = kind(**{k: v for k, v in values.items() if v is not None})
        return command(**given)

    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


def _unwrapped(hint: Any) -> tuple[Any, Only | None]:
    """A parameter's type, and the fields that it is limited to."""
    if typing.get_origin(hint) is not Annotated:
        return hint, None
    kind, *notes = typing.get_args(hint)
    return kind, next((note for note in notes if isinstance(note, Only)), None)


def _place(hint: Any) -> int:
    """Where on the help page a parameter stands: arguments first, then panel by panel."""
    for note in typing.get_args(hint)[1:]:
        if isinstance(note, OptionInfo) and note.rich_help_panel:
            return 1 + GROUPS.index(note.rich_help_panel)
    return 0


def _options(kind: type, only: Only | None) -> Iterator[inspect.Parameter]:
    """The parameters for a dataclass's fields."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        if typing.get_origin(hints[field.name]) is not Annotated:
            continue
        if only is not None and field.name not in only.names:
            continue
        value, declared = typing.get_args(hints[field.name])[:2]
        yield _parameter(field, value, declared)


def _parameter(field: Field[Any], value: Any, declared: Option | Argument) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    if typing.get_origin(value) is Sequence:
        value, default = list[str] | None, None  # how typer has it; () where none was given
    info: Any
    if isinstance(declared, Argument):
        info = typer.Argument(help=declared.help)
    else:
        name = declared.name or f"--{field.name.replace('_', '-')}"
        names = [name] if declared.short is None else [name, declared.short]
        info = typer.Option(*names, help=declared.help, rich_help_panel=declared.group or None)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[value, info],
    )
