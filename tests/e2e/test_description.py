"""The description, tried on a running daemon by schemathesis: whatever it allows and forbids, and sequences of that."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import document
from tests.e2e.daemon import BIN, clean_environment
from tests.e2e.fuzzed import EXAMPLES, Fuzzed, fuzzed, silent
from tests.e2e.replicas import Fleet

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")

Answers = dict[str, set[int]]
"""The statuses of the answers, by what was asked."""


@pytest.fixture
def served(fleet: Fleet) -> Iterator[Fuzzed]:
    """A daemon over hosts that answer."""
    with fuzzed(fleet.hosts) as it:
        it.daemon.soon(lambda: it.daemon.ask("GET", "/readyz")[0], 200)
        yield it


@pytest.fixture
def stranded(fleet: Fleet) -> Iterator[Fuzzed]:
    """A daemon over hosts that cannot be reached."""
    with fuzzed(silent(fleet.hosts)) as it:
        yield it


def try_description(served: Fuzzed, directory: Path) -> Answers:
    """Run schemathesis on a daemon; fail for whatever it finds."""
    report = directory / "report.ndjson"
    url = f"http://127.0.0.1:{served.daemon.port}/openapi.json"
    command = [
        *(str(BIN / "schemathesis"), "--config-file", str(CONFIGURATION), "run", url, "--no-color"),
        *("--max-examples", str(EXAMPLES), "--report", "ndjson", "--report-ndjson-path", str(report)),
    ]
    done = subprocess.run(command, env=clean_environment(), cwd=directory, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return answers(report)


def answers(report: Path) -> Answers:
    """Read what was answered to what."""
    found: Answers = defaultdict(set)
    for line in report.read_text(encoding="utf-8").splitlines():
        recorded = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for name, each in recorded.get("cases", {}).items():
            case = each["value"]
            answer = recorded["interactions"].get(name, {}).get("response")
            if answer is not None:
                found[f"{case['method']} {case['path']}"].add(answer["status_code"])
    return found


def described() -> set[str]:
    """Everything that can be asked, but for the description itself: schemathesis leaves out what it has from there."""
    paths = document()["paths"].items()
    return {f"{method.upper()} {path}" for path, methods in paths for method in methods if path != "/openapi.json"}


def test_a_daemon_answers_as_it_describes(served: Fuzzed, tmp_path: Path) -> None:
    found = try_description(served, tmp_path)
    assert described() <= found.keys()
    assert found["POST /schedule"] >= {200, 400, 422}
    assert 404 in found["DELETE /reservations/{id}"]


def test_a_daemon_that_reaches_no_host_answers_as_it_describes(stranded: Fuzzed, tmp_path: Path) -> None:
    found = try_description(stranded, tmp_path)
    assert described() <= found.keys()
    assert found["POST /schedule"] >= {400, 503}
    assert 200 not in found["POST /schedule"]
    assert found["GET /readyz"] == {503}
