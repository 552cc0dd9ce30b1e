"""``blaster report``: results shown or compared."""

from __future__ import annotations

from typing import Annotated

import typer

from blaster.commands import option

app = typer.Typer()


@app.command(
    epilog="Examples:  blaster report results.json --html report.html   |   "
    "blaster report before.json after.json --max-regression 5%   |   "
    "blaster report runs/ --save-baseline main   |   blaster report results.json --baseline main"
)
def report(
    files: Annotated[
        list[str],
        typer.Argument(
            help="What run --json or capacity --json wrote: one to render, several to compare "
            "with the first; a folder holds repeats."
        ),
    ],
    json: option.Json = None,
    markdown: option.Markdown = None,
    html: option.Html = None,
    csv: option.Csv = None,
    junit: option.Junit = None,
    github_summary: option.GithubSummary = False,
    baseline: Annotated[
        str | None, typer.Option(help="Compare with the results kept by this name.")
    ] = None,
    save_baseline: Annotated[
        str | None,
        typer.Option(help="Keep the results by this name, unless they have regressed."),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(help="The folder of baselines (default: in XDG_DATA_HOME)."),
    ] = None,
    max_regression: Annotated[
        list[str] | None,
        typer.Option(help="How much worse a figure may be, as 10% or FIGURE=10%; repeatable."),
    ] = None,
    quiet: option.Quiet = False,
) -> None:
    """Render results, or compare them.

    Exit status 1 where a comparison shows a regression.
    """
    from blaster.report.command import ReportOptions, report

    regressed = report(
        ReportOptions(
            files=files,
            json=json,
            markdown=markdown,
            html=html,
            csv=csv,
            junit=junit,
            github_summary=github_summary,
            baseline=baseline,
            save_baseline=save_baseline,
            baselines=baselines,
            max_regression=max_regression or (),
            quiet=quiet,
        )
    )
    raise typer.Exit(1 if regressed else 0)
