"""README and guide are true: what they show can be run, and the reference has every option."""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
import yaml
from support import cli, documents, peers
from support.documents import ALL, GUIDE, PAGES, README, ROOT, Block

from blaster.cli import app
from blaster.engine.results import Results
from blaster.guide import pages
from blaster.payload.topology import parse as parse_workload
from blaster.scenario.loading import parse as parse_scenario
from blaster.verdict.capacity import Capacity

CI = (ROOT / ".ci" / "run").read_text()


def leaves(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*names, name))
    if not getattr(command, "commands", {}):
        yield names


TOP: Any = typer.main.get_command(app)
NAMES = sorted(leaves(TOP))


def command_of(names: tuple[str, ...]) -> Any:
    command: Any = TOP
    for name in names:
        command = command.commands[name]
    return command


# Blocks.


@pytest.mark.parametrize("block", ALL, ids=str)
def test_every_block_says_how_it_is_tested(block: Block) -> None:
    """The info string is one that a test here knows, and what is not run has its reason."""
    if block.language in ("sh", "console") and block.rest.startswith("no-run"):
        assert len(block.rest.split()) > 2, "no-run needs a reason"
        for file in re.findall(r"(?:tests|bench)/\w+\.py", block.rest):
            assert (ROOT / file).exists(), file
    else:
        assert block.info in (
            *("sh", "console", "sh collector", "toml scenario", "toml workload"),
            *("yaml", "yaml collector", "text"),
        ), block.info


def test_ci_runs_the_first_two_commands() -> None:
    """README's first command installs, the second one tests, and `.ci/run` takes both from it."""
    assert "pip install" in documents.INSTALL.text and "pytest" in documents.TEST.text
    assert "$(readme 1)" in CI and "$(readme 2)" in CI


RUN = [b for b in ALL if b.is_run and b not in (documents.INSTALL, documents.TEST)]


@pytest.mark.parametrize("block", RUN, ids=str)
def test_what_is_shown_can_be_run(block: Block, tmp_path: Path) -> None:
    """Commands end with status 0, and print what is shown below them."""
    if block.language == "sh":
        ran = documents.run(block.text, tmp_path)
        assert ran.returncode == 0, ran.stdout
        return
    for command, shown in documents.sessions(block):
        ran = documents.run(command, tmp_path)
        assert ran.returncode == 0, ran.stdout
        assert documents.missing(shown, ran.stdout.splitlines()) is None, ran.stdout


def test_outputs_are_compared_line_by_line() -> None:
    """Numbers and blanks may differ; words, order and lines in between may not."""
    printed = ["a  1.0 ms", "b 22 spans, x", "c"]
    for good in (["a 2,000.5 ms", "b 1 spans, x", "c"], ["…", "c"], ["a 1 ms", "b …", "c"]):
        assert documents.missing(good, printed) is None
    for bad in (["b 22 spans, x"], ["a 1.0 s"], ["c", "…", "a 1 ms"], ["…", "d"], ["a x ms"]):
        assert documents.missing(bad, printed) is not None


def collector_config(text: str) -> dict[str, Any]:
    """A page's configuration without its ports, which the peer chooses."""
    config: dict[str, Any] = yaml.safe_load(text)
    assert config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"] == "0.0.0.0:4317"
    (reader,) = config["service"]["telemetry"]["metrics"]["readers"]
    assert reader["pull"]["exporter"]["prometheus"]["port"] == 8888
    del config["receivers"], config["service"]["telemetry"]
    return config


@pytest.mark.parametrize("page", sorted({b.page for b in ALL if b.info == "sh collector"}))
def test_what_is_shown_runs_against_a_collector(
    page: Path, collector_binary: Path, tmp_path: Path
) -> None:
    """The page's Collector starts with the page's configuration and verifies the page's runs."""
    (config,) = [b.text for b in documents.blocks(page) if b.info == "yaml collector"]
    with peers.collector(collector_binary, overrides=collector_config(config)) as collector:
        for block in documents.blocks(page):
            if block.info != "sh collector":
                continue
            script = block.text.replace("localhost:4317", f"127.0.0.1:{collector.grpc_port}")
            script = script.replace("localhost:8888", f"127.0.0.1:{collector.metrics_port}")
            ran = documents.run(
                script.replace("--watch otelcol", f"--watch {collector.pid}"), tmp_path
            )
            assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "toml"], ids=str)
def test_files_that_are_shown_load(block: Block) -> None:
    """Examples of scenarios and workloads are such."""
    parse = parse_scenario if block.rest == "scenario" else parse_workload
    parse(block.text, "mine.toml")


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "yaml"], ids=str)
def test_yaml_that_is_shown_is_such(block: Block) -> None:
    """It parses to a mapping, and the commands in a workflow's steps are known."""
    document = yaml.safe_load(block.text)
    assert isinstance(document, dict)
    for job in document.get("jobs", {}).values():
        steps = "\n".join(step.get("run", "") for step in job["steps"])
        check_invocations(Block(block.page, block.line, "sh", steps))


@pytest.mark.parametrize("block", [b for b in ALL if b.language in ("sh", "console")], ids=str)
def test_every_command_that_is_shown_parses(block: Block) -> None:
    """Run or not: commands, options and the types of their values are known."""
    check_invocations(block)


def check_invocations(block: Block) -> None:
    for arguments in documents.invocations(block):
        command, names = TOP, []
        while arguments and arguments[0] in getattr(command, "commands", {}):
            names.append(arguments[0])
            command = command.commands[arguments.pop(0)]
        assert names, arguments
        command.make_context(" ".join(names), list(arguments), resilient_parsing=False)


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "blaster").rglob("*.md"))], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files that there are."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text):
        assert (page.parent / target).exists(), target


# README.


def test_the_readme_is_short_and_names_every_page() -> None:
    """At most 250 lines, and a link to each page of the guide."""
    text = README.read_text()
    assert len(text.splitlines()) <= 250
    for topic in pages.TOPICS:
        assert f"(blaster/guide/{topic}.md)" in text, topic


# The guide in the terminal.


def test_topics_are_the_pages() -> None:
    """Each page is a topic, begins with its name, and says what it is about."""
    assert sorted(pages.TOPICS) == sorted(page.stem for page in GUIDE.glob("*.md"))
    for topic in pages.TOPICS:
        assert pages.read(topic).startswith(f"# {topic}: "), topic
        assert pages.description(topic), topic


def test_the_guide_lists_its_topics_in_a_line_each() -> None:
    """Without a topic: the names of all, in order, within 80 columns."""
    lines = cli.blaster("guide", COLUMNS="80").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(pages.TOPICS)
    assert max(map(len, lines)) <= 80


def test_an_unknown_topic_is_one_line_with_those_there_are() -> None:
    """Exit status 2."""
    ran = cli.blaster("guide", "lode")
    assert ran.returncode == 2 and not ran.stdout
    (line,) = ran.stderr.splitlines()
    assert "lode" in line and all(topic in line for topic in pages.TOPICS)


@pytest.mark.parametrize("columns", ["80", "200"])
@pytest.mark.parametrize("topic", pages.TOPICS)
def test_a_page_fits_the_terminal_and_loses_nothing(topic: str, columns: str) -> None:
    """No line is too long, no word is missing, and there are no escape codes in a pipe."""
    ran = cli.blaster("guide", topic, COLUMNS=columns)
    assert ran.returncode == 0 and "\x1b" not in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= min(int(columns), 100)
    plain = re.sub(r"^```.*$", "", pages.read(topic), flags=re.MULTILINE)
    plain = re.sub(r"\]\([^)]*\)", "", plain)
    printed = re.findall(r"\w+", ran.stdout)
    for word in set(re.findall(r"\w+", plain)):
        assert word in printed or any(word in line for line in ran.stdout.split()), word
    assert ran.stdout.count("…") == plain.count("…")


@pytest.mark.parametrize("topic", pages.TOPICS)
def test_code_is_not_wrapped_at_80_columns(topic: str) -> None:
    """What is to be copied stands in whole lines."""
    for block in documents.blocks(GUIDE / f"{topic}.md"):
        for line in block.text.splitlines():
            assert len(line) <= 78, line


# The reference.


def section(names: tuple[str, ...]) -> str:
    """The reference's part on a command."""
    parts = re.split(r"^## blaster ", pages.read("reference"), flags=re.MULTILINE)[1:]
    name = " ".join(names)
    (found,) = [p for p in parts if re.fullmatch(rf"{name}( [A-Z\[].*)?", p.splitlines()[0])]
    return found


@pytest.mark.parametrize("names", NAMES, ids=" ".join)
def test_the_reference_has_each_option_and_no_other(names: tuple[str, ...]) -> None:
    """The tables' first column names just the options of the command, and what may be repeated is
    said to be; each option and command has help."""
    command = command_of(names)
    assert command.help
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", section(names), flags=re.MULTILINE)
    written = [o for cell, _ in rows for o in re.findall(r"`(--?[a-z-]+)", cell)]
    known = [o for p in options for o in (*p.opts, *p.secondary_opts)]
    assert sorted(set(written)) == sorted(known)
    for option in options:
        assert option.help, option.name
        cell = next(m for c, m in rows if f"`{option.opts[0]}" in c)
        if option.multiple and "as for run" not in cell:
            assert "repeatable" in cell, option.name


def test_the_reference_has_no_other_command() -> None:
    """Its sections are the commands."""
    found = re.findall(r"^## blaster ((?:[a-z]+ ?)+)", pages.read("reference"), flags=re.MULTILINE)
    assert sorted(tuple(name.split()) for name in found) == NAMES


@pytest.mark.parametrize("names", NAMES, ids=" ".join)
def test_every_help_page_has_an_example_that_is_one(names: tuple[str, ...]) -> None:
    """Each command's help ends with examples of itself, whose options it knows."""
    command = command_of(names)
    examples = (command.epilog or "").partition(":")[2].split("   |   ")
    known = {option for parameter in command.params for option in parameter.opts}
    for example in examples:
        assert example.split()[: 1 + len(names)] == ["blaster", *names], example
        assert set(re.findall(r"(?<= )--[a-z-]+", example)) <= known, example


# The keys of results.json.


def structs(kind: Any, seen: set[Any]) -> set[Any]:
    """The structs and data classes that a type is made of."""
    fields = typing.get_type_hints(kind) if hasattr(kind, "__annotations__") else {}
    if fields and isinstance(kind, type) and kind not in seen:
        seen.add(kind)
        for inner in fields.values():
            structs(inner, seen)
    for inner in typing.get_args(kind):
        structs(inner, seen)
    return seen


def test_every_key_of_the_results_is_explained() -> None:
    """Each key, of runs and of searches, stands in the page on results."""
    text = pages.read("results")
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`|^#+ .*", text, re.MULTILINE))))
    for kind in structs(Results, set()) | structs(Capacity, set()):
        for key in msgspec.inspect.type_info(kind).fields:
            assert key.encode_name in named, f"{kind.__name__}.{key.encode_name}"


def test_no_key_is_explained_that_there_is_not() -> None:
    """The paths in the tables exist."""
    tables = pages.read("results").partition("## capacity")
    for table, kind in ((tables[0], Results), (tables[2], Capacity)):
        for cell in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE):
            for path in re.findall(r"`([\w.\[\]]+)`", cell):
                reached: Any = kind
                for name in path.replace("[]", "").split("."):
                    fields = {
                        key: inner
                        for struct in structs_at(reached)
                        for key, inner in typing.get_type_hints(struct).items()
                    }
                    assert name in fields, path
                    reached = fields[name]


def structs_at(kind: Any) -> list[Any]:
    """The structs that a type may be, through lists and None."""
    inner = typing.get_args(kind)
    if inner:
        return [struct for one in inner for struct in structs_at(one)]
    return [kind] if hasattr(kind, "__annotations__") else []


# The shell.


def test_completion_knows_commands_and_options() -> None:
    """The shell's completion, as typer installs it, lists them."""
    for words, wanted in (("blaster da", "dashboard"), ("blaster run --metr", "--metrics-port")):
        ran = cli.blaster(
            _BLASTER_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))
        )
        assert wanted in ran.stdout.split(), ran
    top = cli.blaster("--help").stdout
    assert "--install-completion" in top and "Examples:" in top


# For those who change blaster.

ARCHITECTURE = (ROOT / "blaster" / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_architecture_names_every_package_and_no_other() -> None:
    """The table of layers has each package and module of the top level."""
    folder = ROOT / "blaster"
    modules = {file.stem for file in folder.glob("*.py") if not file.stem.startswith("__")}
    packages = {file.parent.name for file in folder.glob("*/*.py")}
    table = ARCHITECTURE.partition("## Packages")[2].partition("\n## ")[0]
    cells = " ".join(re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE))
    assert set(re.findall(r"`(\w+)/?`", cells)) == modules | packages | {"_native", "_wire"}


@pytest.mark.parametrize("page", ["blaster/README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(page: str) -> None:
    """A path in backquotes, or a pattern, is one of the tree."""
    text = (ROOT / page).read_text()
    base = (ROOT / page).parent
    for path in re.findall(r"`((?!\.cache)[\w./*]+/[\w./*]+|[\w*]+\.(?:py|c|\*))`", text):
        below = ("", "native/", "bench/", "engine/")
        roots = (base, ROOT)
        assert any(list(r.glob(f"{b}{path}".rstrip("/"))) for r in roots for b in below), path


def test_contributing_has_markers_sections_and_benchmarks() -> None:
    """Each pytest marker, each section of `.ci/run` and each benchmark is explained."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for marker in project["tool"]["pytest"]["ini_options"]["markers"]:
        name, _, meaning = marker.partition(": ")
        assert f"| `{name}` | {meaning} |" in CONTRIBUTING, marker
    (sections,) = re.findall(r"sections=\((\w[\w ]+)\)", CI)
    for section in ("packages", "install", *sections.split()):
        assert f"`{section}`" in CONTRIBUTING, section
    for file in (ROOT / "bench").glob("bench_*.py"):
        assert f"`{file.name}`" in CONTRIBUTING, file.name


def test_every_decision_is_listed() -> None:
    """The list links each page, and each page begins with a title and a question."""
    folder = ROOT / "blaster" / "decisions"
    listed = re.findall(r"\]\((\w+\.md)\)", (folder / "README.md").read_text())
    assert sorted(listed) == sorted(p.name for p in folder.glob("*.md") if p.name != "README.md")
    for name in listed:
        text = (folder / name).read_text()
        assert text.startswith("# ") and "**Question.**" in text and "**Decision.**" in text, name
