"""The reading of csi-sanity's report, tried on a real one.

It is of a run that was cut short, and is itself cut down to one case of each outcome.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sanity.build import BuildError, parse_go_version
from tests.sanity.report import (
    DISABLED,
    FAILED,
    NO_REASON,
    PASSED,
    SKIPPED,
    Report,
    format_table,
    read_report,
)

EXAMPLE = Path(__file__).with_name("example_report.json")


@pytest.fixture(scope="module")
def report() -> Report:
    return read_report(EXAMPLE)


def test_every_case_is_counted_once(report: Report) -> None:
    assert [case.name for case in report.having(PASSED)] == [
        "NodeGetCapabilities: should return appropriate capabilities"
    ]
    assert len(report.having(FAILED)) == 2
    assert len(report.having(SKIPPED)) == 4
    assert report.number_run == 3
    assert report.seconds == pytest.approx(4.0, abs=0.1)


def test_skips_carry_their_reason(report: Report) -> None:
    assert {case.reason for case in report.having(SKIPPED)} == {
        "DeleteSnapshot not supported",
        "GroupControllerService not supported",
        NO_REASON,
        DISABLED,
    }


def test_failures_say_what_and_where(report: Report) -> None:
    text = report.describe_failures()
    assert "Suite Timeout Elapsed" in text
    assert "NodeUnpublishVolume: should remove target path" in text
    assert "Method not implemented!" in text
    assert "and then: resource cleanup failed" in text
    assert "node.go:489" in text
    assert "timedout: A suite timeout occurred" in text


def test_tags_for_choosing_cases_are_left_out_of_names(report: Report) -> None:
    assert not [case.name for case in report.cases if "[" in case.name or "]" in case.name]


def test_a_failed_set_up_step_counts(tmp_path: Path) -> None:
    suites: list[dict[str, Any]] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    failed = next(s for s in suites[0]["SpecReports"] if s["State"] == "failed")
    failed |= {"LeafNodeType": "BeforeSuite", "ContainerHierarchyTexts": None, "LeafNodeText": ""}
    file = tmp_path / "report.json"
    file.write_text(json.dumps(suites), encoding="utf-8")
    assert any(case.name.startswith("BeforeSuite") for case in read_report(file).having(FAILED))


def test_a_failure_without_a_case_is_trouble(tmp_path: Path) -> None:
    suites: list[dict[str, Any]] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    suites[0] |= {"SpecReports": [], "SpecialSuiteFailureReasons": None}
    file = tmp_path / "report.json"
    file.write_text(json.dumps(suites), encoding="utf-8")
    assert "names no case" in read_report(file).describe_failures()


def test_the_table_names_rows_reasons_and_where(report: Report) -> None:
    short = Report(
        tuple(case for case in report.cases if case.reason != DISABLED), report.troubles, 1
    )
    lines = format_table({"first": report, "second row": short, "third": None})
    table = "\n".join(lines)
    assert lines[1].split() == ["first", "1", "2", "4", "4.0", "s"]
    assert lines[2].split() == ["second", "row", "1", "2", "3", "1.0", "s"]
    assert "did not run to its end" in lines[3]
    assert f"{DISABLED}: its authors" in table
    assert "DeleteSnapshot not supported: not expected" in table
    (only_first,) = [line for line in lines if "pagination" in line]
    assert only_first.endswith("(only first)")
    (everywhere,) = [line for line in lines if "no snapshot id" in line]
    assert "only" not in everywhere


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go1.26.8", (1, 26, 8)),
        ("1.25.0", (1, 25, 0)),
        ("go1.26rc1", (1, 26, 0)),
        ("go1.27.1 X:nodwarf5", (1, 27, 1)),
    ],
)
def test_versions_of_go_compare_as_numbers(text: str, version: tuple[int, ...]) -> None:
    assert parse_go_version(text) == version


def test_what_is_no_version_of_go_is_said_so() -> None:
    with pytest.raises(BuildError, match="devel"):
        parse_go_version("devel")
