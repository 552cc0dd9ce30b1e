"""Other interpreters that run a module of this package."""

from __future__ import annotations

import sys
from pathlib import Path

_PROGRAM = """\
import importlib.util, runpy, sys
init, module = sys.argv[1:3]
del sys.argv[1:3]
spec = importlib.util.spec_from_file_location("blaster", init)
sys.modules["blaster"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["blaster"])
from blaster.process_title import hide_secrets
hide_secrets()
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs ``module``, such as ``blaster.sink``, in an interpreter of its own.

    It imports nothing from the working directory (-P), and this very blaster, wherever that was
    imported from: a folder ``blaster`` or a ``json.py`` beside the user is none of its business.
    """
    init = Path(__file__).with_name("__init__.py")
    return [sys.executable, "-P", "-c", _PROGRAM, str(init), module, *arguments]
