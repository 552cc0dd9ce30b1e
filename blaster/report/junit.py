"""The verdict as JUnit XML, which CI systems show: a test case for each check.

The form is the one of Apache Ant's junitreport task that Jenkins, GitLab and GitHub's actions read:
a check that failed is a failure, one that could not be measured is skipped.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

from blaster.engine.results import Results

# What XML 1.0 cannot hold, not even as a character reference.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(results: Results) -> str:
    """One suite, named after the scenario. Times are in seconds."""
    assert results.verdict is not None
    checks = results.verdict.checks
    counts: dict[str, Any] = {
        "tests": str(len(checks)),
        "failures": str(sum(check.passed is False for check in checks)),
        "errors": "0",
        "skipped": str(sum(check.passed is None for check in checks)),
        "time": f"{results.duration_s:.3f}",
    }
    root = ET.Element("testsuites", name="blaster", **counts)
    suite = ET.SubElement(
        root,
        "testsuite",
        name=_text(f"blaster.{results.scenario}"),
        timestamp=results.started_at[:19],
        **counts,
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("endpoint", results.configuration.endpoint),
        ("seed", str(results.seed)),
        ("limited_by", results.verdict.limited_by),
        ("reason", results.verdict.reason),
    ):
        ET.SubElement(properties, "property", name=name, value=_text(value))
    for check in checks:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=_text(f"blaster.{results.scenario}"),
            name=_text(check.name),
            time="0",
        )
        said = f"expected {check.expected}, actual {check.actual}"
        if check.passed is None:
            ET.SubElement(case, "skipped", message=_text(said))
        elif not check.passed:
            ET.SubElement(case, "failure", message=_text(said), type="threshold").text = _text(said)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _text(value: str) -> str:
    return _FORBIDDEN.sub("\ufffd", value)
