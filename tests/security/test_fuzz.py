"""Every field of every request, spoiled: only answers that the specification knows, and no harm.

`make test-security` makes a million requests. One that failed is made again by its seed and number:

    SECURITY_SEED=<seed> FUZZ_ONLY=<number> pytest tests/security/test_fuzz.py
"""

import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from grpc import StatusCode as Code

from csi.v1 import csi_pb2 as pb
from tests.security import fuzz, scale
from tests.security.allowed import ALLOWED
from tests.security.corpus import TEXTS
from tests.security.fuzz_requests import SECRET
from tests.security.inside import Answer
from tests.security.mutations import REQUESTS, Mutator, parsed
from tests.security.sandbox import confine, run_confined

REQUESTS_SAMPLED, REQUESTS_WHOLE = 1_500, 1_000_000
ONLY = os.environ.get("FUZZ_ONLY")
WORKERS = 2 if scale.WHOLE else 1
TIMEOUT_S = 3600.0


@pytest.mark.kernel
def test_no_request_gets_more_than_a_refusal(tmp_path: Path) -> None:
    each = scale.choose(REQUESTS_SAMPLED, REQUESTS_WHOLE) // WORKERS

    def work(worker: int) -> Any:
        seed = scale.SEED * WORKERS + worker
        only = ("--only", ONLY) if ONLY else ()
        return run_confined(
            *("tests.security.fuzz", tmp_path / f"fuzz-{worker}", seed, each, *only),
            timeout_s=TIMEOUT_S,
        )

    with ThreadPoolExecutor(WORKERS) as pool:
        found = list(pool.map(work, range(WORKERS)))

    codes: Counter[str] = Counter()
    for figures in found:
        codes.update(figures["codes"])
    scale.FIGURES["malformed requests"] += codes.total()
    scale.FIGURES["of them a second"] = round(sum(figures["rate"] for figures in found))
    violations = [violation for figures in found for violation in figures["violations"]]
    scale.FIGURES["of them answered as none may be"] += len(violations)
    assert not violations, "\n".join(map(str, violations))
    if not ONLY:
        assert {key.split()[0] for key in codes} == set(REQUESTS), "a call was left out"
        refused = sum(number for key, number in codes.items() if not key.endswith(" OK"))
        assert refused > codes.total() / 4, "most of them were not spoiled at all"
        for rpc in REQUESTS:
            assert codes[f"{rpc} OK"], f"no {rpc} came through: its requests are not right at first"


def test_every_call_has_its_codes() -> None:
    assert set(ALLOWED) == set(REQUESTS)
    for rpc, codes in ALLOWED.items():
        assert not codes & {Code.INTERNAL, Code.UNKNOWN, Code.UNAVAILABLE}, rpc


@pytest.mark.parametrize(
    ("answer", "lines", "what"),
    [
        (Answer(Code.INTERNAL, "an unexpected error", b""), [], "INTERNAL"),
        (Answer(Code.UNAVAILABLE, "later", b""), [], "UNAVAILABLE"),
        (Answer(Code.NOT_FOUND, "no such volume", b""), [], "NOT_FOUND"),
        (Answer(Code.INVALID_ARGUMENT, " ", b""), [], "without a message"),
        (Answer(Code.INVALID_ARGUMENT, f"bad {SECRET}", b""), [], "must not"),
        (Answer(Code.OK, "", b""), ['{"exception": "Traceback (most...'], "traceback"),
        (Answer(Code.OK, "", b""), [f"request={SECRET}"], "secret"),
        (Answer(Code.OK, "", b""), ["name=a\nb"], "in two"),
    ],
)
def test_what_is_wrong_is_noticed(answer: Answer, lines: list[str], what: str) -> None:
    assert what in " ".join(
        fuzz.faults("CreateSnapshot" if what != "NOT_FOUND" else "ListVolumes", answer, 0.0, lines)
    )


def test_what_is_right_is_not() -> None:
    answer = Answer(Code.INVALID_ARGUMENT, "name is missing", b"")
    assert list(fuzz.faults("CreateVolume", answer, 0.0, ["one line"])) == []
    assert list(fuzz.faults("CreateVolume", answer, 60.0, [])) == ["it took 60.0 s"]


def test_the_same_seed_spoils_in_the_same_way() -> None:
    def drawn(seed: int) -> list[bytes]:
        mutator = Mutator(random.Random(seed), ["an-id"])
        return [mutator.spoil(pb.CreateVolumeRequest(name="name")) for _ in range(200)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(set(drawn(1))) > 120


def test_every_field_is_reached() -> None:
    """Those inside of messages and lists, too."""
    mutator, seen = Mutator(random.Random(1), TEXTS), set()
    for _ in range(3000):
        message = pb.CreateVolumeRequest(name="name")
        data = mutator.spoil(message)
        seen.update(_fields_set(pb.CreateVolumeRequest, data))
    assert seen >= {
        *("name", "capacity_range.required_bytes", "capacity_range.limit_bytes", "parameters"),
        *("volume_capabilities.mount.fs_type", "volume_capabilities.mount.mount_flags"),
        *("volume_capabilities.block", "volume_capabilities.access_mode.mode", "secrets"),
        *("volume_content_source.snapshot.snapshot_id", "mutable_parameters"),
        "accessibility_requirements.requisite.segments",
    }


def _fields_set(kind: type[Message], data: bytes) -> set[str]:
    message = parsed(kind, data)
    return set() if message is None else set(_ways(message, ""))


def _ways(message: Any, before: str) -> list[str]:
    found = []
    for field, value in message.ListFields():
        found.append(before + field.name)
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else [value]:
                found += _ways(inner, f"{before}{field.name}.")
    return found


def test_it_does_not_run_outside_of_its_namespace(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="spoil"):
        confine(tmp_path)
