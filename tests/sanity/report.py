"""Reads csi-sanity's report and says in one table what passed, what failed, what was skipped."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
DISABLED = "disabled upstream"
NO_REASON = "no reason given: csi-sanity itself was stopped"

EXPECTED_SKIPS = {DISABLED: "its authors hold the case for fragile"}
"""What this driver does not do; skipped for any other reason, a case counts against it."""

_NANOSECONDS = 1_000_000_000
# The words in brackets are for choosing cases by pattern; in a table they are noise.
_TAGS = (" [Controller Server]", " [GroupController Server]", " [GroupController", "]")


@dataclass(frozen=True)
class Case:
    """One case of csi-sanity, as it went.

    Attributes:
        name: Its place and its text, as in `CreateVolume: should fail when no name is provided`.
        outcome: PASSED, FAILED or SKIPPED.
        reason: Why it failed or was skipped; empty where it passed.
        details: For a failed one: where in csi-sanity, and what that printed.
    """

    name: str
    outcome: str
    reason: str = ""
    details: str = ""


@dataclass(frozen=True)
class Report:
    """One run of csi-sanity.

    Attributes:
        cases: Every case it knows, run or not.
        troubles: What was wrong with the run as a whole.
        seconds: How long it took.
    """

    cases: tuple[Case, ...]
    troubles: tuple[str, ...]
    seconds: float

    def having(self, outcome: str) -> list[Case]:
        """The cases that went this way."""
        return [case for case in self.cases if case.outcome == outcome]

    @property
    def number_run(self) -> int:
        """How many cases have really been tried."""
        return len(self.having(PASSED)) + len(self.having(FAILED))

    def describe_failures(self) -> str:
        """The troubles and the failed cases at length, for a person; empty when there are none."""
        parts = list(self.troubles)
        for case in self.having(FAILED):
            parts.append(f"{case.name}\n    {_indented(case.reason)}")
            if case.details:
                parts.append(f"    {_indented(case.details)}")
        return "\n".join(parts)


def read_report(path: Path) -> Report:
    """Reads the file that `--ginkgo.json-report` wrote."""
    suites = json.loads(path.read_text(encoding="utf-8"))
    cases: list[Case] = []
    troubles: list[str] = []
    seconds = 0.0
    for suite in suites:
        seconds += suite["RunTime"] / _NANOSECONDS
        troubles += suite["SpecialSuiteFailureReasons"] or []
        for spec in suite["SpecReports"] or []:
            case = _read_case(spec)
            # Set-up and reporting steps of the suite are listed too; they count when they fail.
            if spec["LeafNodeType"] == "It" or case.outcome == FAILED:
                cases.append(case)
        if not suite["SuiteSucceeded"] and not any(case.outcome == FAILED for case in cases):
            troubles.append("csi-sanity says that it failed, but names no case that did")
    return Report(tuple(cases), tuple(troubles), seconds)


def _read_case(spec: dict[str, Any]) -> Case:
    name = _name_of(spec)
    failure = spec.get("Failure") or {}
    message = failure.get("Message", "").strip()
    match spec["State"]:
        case "passed":
            return Case(name, PASSED)
        case "skipped":
            return Case(name, SKIPPED, message or NO_REASON)
        case "pending":
            return Case(name, SKIPPED, DISABLED)
        case state:
            # Besides "failed" there are "panicked", "timedout", "aborted" and "interrupted".
            reason = message if state == FAILED else f"{state}: {message}"
            details = [f"in the case at {_place(spec['LeafNodeLocation'])}"]
            for further in [failure, *(more["Failure"] for more in _additional(spec))]:
                if further is not failure:
                    details.append(f"and then: {further['Message'].strip()}")
                details.append(f"at {_place(further.get('Location'))}")
            details.append(spec.get("CapturedGinkgoWriterOutput", "").strip())
            return Case(name, FAILED, reason, "\n".join(filter(None, details)))


def _additional(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return spec.get("AdditionalFailures") or []


def _place(location: dict[str, Any] | None) -> str:
    # The file's path begins with its module and version; its name tells enough.
    file = (location or {}).get("FileName", "an unknown place")
    return f"{file.rpartition('/')[2]}:{(location or {}).get('LineNumber', 0)}"


def _name_of(spec: dict[str, Any]) -> str:
    places = list(spec["ContainerHierarchyTexts"] or [])
    # Where there is a more exact place, the name of the whole service is noise.
    place = places[-1] if places else spec["LeafNodeType"]
    if place.startswith("with ") and len(places) > 1:
        place = f"{places[-2]} {place}"
    for tag in _TAGS:
        place = place.replace(tag, "")
    return f"{place}: {spec['LeafNodeText']}"


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def format_table(reports: dict[str, Report | None]) -> list[str]:
    """Lays out all rows, and below them why cases were skipped.

    Args:
        reports: By the name of the row; None where csi-sanity came to no report.
    """
    width = max(len(name) for name in reports)
    lines = [f"{'':{width}}  passed  failed  skipped     time"]
    finished = {row: report for row, report in reports.items() if report is not None}
    skips: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in reports:
        if row not in finished:
            lines.append(f"{row:{width}}  csi-sanity did not run to its end")
            continue
        report = finished[row]
        passed, failed, skipped = (
            len(report.having(outcome)) for outcome in (PASSED, FAILED, SKIPPED)
        )
        lines.append(f"{row:{width}}  {passed:6}  {failed:6}  {skipped:7}  {report.seconds:5.1f} s")
        for case in report.having(SKIPPED):
            skips[case.reason][case.name].append(row)
    if skips:
        lines += ["", "Skipped, and why:"]
    for reason, cases in sorted(skips.items()):
        explanation = EXPECTED_SKIPS.get(reason, "not expected")
        lines.append(f"  {reason}: {explanation}")
        for name, rows in sorted(cases.items()):
            where = "" if len(rows) == len(finished) else f" (only {'; '.join(rows)})"
            lines.append(f"    {name}{where}")
    return lines
