"""The verdict as JUnit XML, for CI systems: a test case for each check.

The format is that of Apache Ant's junitreport task, which Jenkins, GitLab and GitHub Actions read:
a failed check is a failure; one that could not be measured is skipped.
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

from blaster.engine.results import Results


def to_junit(results: Results) -> str:
    """Return one test suite, named after the scenario. Times are in seconds. All text must be
    clean: XML 1.0 has no control characters, even as references."""
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
        name=f"blaster.{results.scenario}",
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
        ET.SubElement(properties, "property", name=name, value=value)
    for check in checks:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"blaster.{results.scenario}",
            name=check.name,
            time="0",
        )
        message = f"expected {check.expected}, actual {check.actual}"
        if check.passed is None:
            ET.SubElement(case, "skipped", message=message)
        elif not check.passed:
            failure = ET.SubElement(case, "failure", message=message, type="threshold")
            failure.text = message
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
