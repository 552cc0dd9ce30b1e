"""The README is true: every command and option stands in it, and what it shows can be run."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from support import cli

from blaster.cli import app
from blaster.scenario.loading import parse

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def section(command: str) -> str:
    """The reference's part on ``command``."""
    parts = re.split(r"^### ", README.partition("## Reference")[2], flags=re.MULTILINE)
    (found,) = [p for p in parts if re.search(rf"\bblaster {command}\b", p.splitlines()[0])]
    return found


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_and_option_stands_in_the_readme(command: str) -> None:
    """The reference names each command and each of its options, and each has help."""
    text = section(command)
    assert COMMANDS[command].help
    for parameter in COMMANDS[command].params:
        if parameter.param_type_name == "option" and parameter.name != "help":
            assert parameter.help, parameter.name
            assert any(re.search(rf"{re.escape(o)}\b", text) for o in parameter.opts), (
                parameter.opts
            )


def test_no_option_in_the_readme_is_unknown() -> None:
    """Each option that the README gives a command is one of it."""
    for command in COMMANDS:
        known = {o for p in COMMANDS[command].params for o in p.opts}
        cells = re.findall(r"^\| (`-.*?) \|", section(command), flags=re.MULTILINE)
        for option in re.findall(r"--[a-z-]+", " ".join(cells)):
            assert option in known, f"{command} {option}"


def test_the_scenario_in_the_readme_loads() -> None:
    """The TOML example is a scenario."""
    (example,) = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)
    scenario = parse(example, "mine.toml")
    assert len(scenario.stages) == 2 and scenario.criteria.none_dropped


def _leaves(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from _leaves(inner, (*names, name))
    if not getattr(command, "commands", {}):
        yield names


@pytest.mark.parametrize("names", sorted(_leaves(typer.main.get_command(app))))
def test_every_help_page_has_an_example_that_is_one(names: tuple[str, ...]) -> None:
    """Each command's help ends with examples of itself, whose options it knows."""
    command: Any = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]
    examples = (command.epilog or "").partition(":")[2].split("   |   ")
    known = {option for parameter in command.params for option in parameter.opts}
    for example in examples:
        assert example.split()[: 1 + len(names)] == ["blaster", *names], example
        assert set(re.findall(r"(?<= )--[a-z-]+", example)) <= known, example


def test_completion_knows_commands_and_options() -> None:
    """The shell's completion, as typer installs it, lists them."""
    for words, wanted in (("blaster da", "dashboard"), ("blaster run --metr", "--metrics-port")):
        ran = cli.blaster(
            _BLASTER_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))
        )
        assert wanted in ran.stdout.split(), ran
    top = cli.blaster("--help").stdout
    assert "--install-completion" in top and "Examples:" in top
