"""The shape of the code: which package may import which, and where the heavy dependencies live."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "blaster"

# From the bottom up. A package imports itself and what stands below it, not beside it; the modules
# of the first layer import each other.
LAYERS = [
    {
        "__init__",
        "errors",
        "units",
        "text",
        "address",
        "http_server",
        "process_title",
        "layout",
        "option",
        "streams",
        "interpreter",
        "_native",
        "_wire",
    },
    {"otlp", "guide"},
    {"measure", "proxy"},
    {"chaos"},
    {"scenario"},
    {"pacing"},
    {"payload", "sink"},
    {"transport"},
    {"backends"},
    {"engine"},
    {"verdict"},
    {"profile"},
    {"cluster"},
    {"job"},
    {"listener", "notes", "doctor", "send"},
    {"progress"},
    {"run"},
    {"trials"},
    {"calibration"},
    {"capacity"},
    {"report"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

HOMES = {
    "distributed": {"cluster/dask.py"},
    "grpc": {"transport/grpc.py", "sink/grpc_receiver.py", "sink/exporter.py"},
    "psutil": {"measure/sampler.py", "chaos.py"},
    "typer": {"cli.py", "commands"},
    "prometheus_client": {"backends/metrics.py"},
    "google": {"otlp", "payload", "sink", "transport/grpc.py"},
    "opentelemetry": {"otlp", "payload", "sink", "report/otlp_metrics.py", "transport/grpc.py"},
}

FILES = sorted(ROOT.rglob("*.py"))


def imports(file: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.append(node.module)
            if node.module == "blaster":
                names += [f"blaster.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(ROOT)) for f in FILES])
def test_imports_point_one_way(file: Path) -> None:
    """No file imports from a layer above its own, and each heavy dependency stays at its home."""
    relative = file.relative_to(ROOT)
    own = relative.parts[0].removesuffix(".py")
    for name in imports(file):
        top, _, rest = name.partition(".")
        if top == "blaster":
            part = rest.partition(".")[0]
            if part and part != "__version__":
                below = LEVEL[part] < LEVEL[own] or LEVEL[own] == 0 or part == own
                assert below, f"{relative} imports {name}"
        elif top in HOMES:
            homes = HOMES[top]
            assert str(relative) in homes or relative.parts[0] in homes, f"{relative}: {name}"


def test_the_parent_never_imports_grpcio() -> None:
    """Importing all that the parent needs does not import grpcio, nor start a thread."""
    import subprocess
    import sys

    program = (
        "import sys, threading; import blaster.run, blaster.cli, blaster.report.console;"
        "assert 'grpc' not in sys.modules; assert threading.active_count() == 1;"
        "import os; tasks = '/proc/self/task';"
        "assert not os.path.exists(tasks) or len(os.listdir(tasks)) == 1, os.listdir(tasks)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
