"""The description that is served, and that it says all there is and nothing else."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

import lxdsched
from lxdsched.model import Code, InstanceType, Phase, Reason, State
from lxdsched.web.app import Api
from lxdsched.web.description import describe
from lxdsched.web.description.errors import KINDS
from lxdsched.web.errors import ApiError
from lxdsched.web.requests import MEBIBYTE, MOST_CORES, MOST_MEMORY, MOST_TEXT, read_schedule
from tests.conformance import conforms, conforms_as_error, document, faults
from tests.web.client import ask
from tests.web.conftest import Served

PACKAGE = Path(lxdsched.__file__).parent
DOCS = PACKAGE.parent / "docs" / "http-api.md"
SENT = {"cache-control": "no-store", "x-request-id": "1", "content-type": "application/json"}
REQUEST = {"$ref": "#/components/schemas/ScheduleRequest"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def enum(schema: str, name: str) -> set[str]:
    return set(document()["components"]["schemas"][schema]["properties"][name]["enum"])


def test_it_is_openapi_of_the_running_version() -> None:
    OpenAPIV31SpecValidator(document()).validate()
    assert document()["openapi"].startswith("3.1.")
    assert document()["info"]["version"] == lxdsched.__version__


@pytest_twisted.ensureDeferred
async def test_it_is_served_with_the_strategies_that_may_be_asked_for(served: Served) -> None:
    answer = await ask("GET", served.url + "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    strategies = ["least-allocated", "least-allocated-percent"]
    assert answer.body == json.loads(describe(strategies))
    asked = answer.body["components"]["schemas"]["FlatRequest"]["properties"]["strategy"]
    assert asked["enum"] == [*strategies, None]


def test_every_route_is_described_and_nothing_else() -> None:
    def key(method: str, path: str) -> str:
        return f"{method} {re.sub(r'[<{][^>}]*[>}]', '{}', path)}"

    # HEAD goes with GET, wherever that is.
    routes = {
        key(method, rule.rule)
        for rule in Api._app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert {key(method, path) for method, path, _ in operations()} == routes


def test_every_name_that_an_answer_may_have_is_described() -> None:
    assert enum("Host", "state") == set(State)
    assert document()["components"]["schemas"]["HostsSummary"]["properties"]["by_state"]["properties"].keys() == set(
        State
    )
    assert enum("Exclusion", "reason") == set(Reason)
    assert enum("Reservation", "state") == set(Phase)
    assert enum("FlatRequest", "instance_type") == {*InstanceType, None}
    assert set(Code) <= KINDS.keys()


def raised() -> Iterator[tuple[int, str]]:
    """Find the status and the code of every error in the sources."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "ApiError":
                status, code = node.args[:2]
                if isinstance(status, ast.Constant) and isinstance(code, ast.Constant):
                    yield int(str(status.value)), str(code.value)


def test_every_error_in_the_sources_is_described_and_documented() -> None:
    found = set(raised())
    assert len(found) > 5
    assert found <= {(kind.status, kind.code) for kind in KINDS.values()}
    told = DOCS.read_text(encoding="utf-8")
    assert [code for _, code in sorted(found) if f"`{code}`" not in told] == []
    assert [path for _, path, _ in operations() if f"{path}`" not in told] == []


def test_every_operation_says_who_may_ask() -> None:
    for method, path, operation in operations():
        rights = {right for way in operation["security"] for each in way.values() for right in each}
        if path in {"/healthz", "/readyz"}:
            assert (operation["security"], operation["responses"].keys() & {"401", "403"}) == ([], set())
        else:
            assert rights == {"schedule" if method in {"POST", "DELETE"} else "read"}, path
            assert operation["security"][0] == {}  # access control may be off
            assert operation["responses"].keys() >= {"401", "403"}
            (right,) = rights
            assert f"`{right}`" in operation["description"]


def examples(part: object) -> Iterator[tuple[dict[str, Any], object]]:
    """Find every example of a body, and the schema that it is of."""
    if isinstance(part, dict):
        if "schema" in part and "examples" in part:
            for example in part["examples"].values():
                yield part["schema"], example["value"]
        for each in part.values():
            yield from examples(each)


def test_every_example_is_as_described() -> None:
    found = list(examples(document()))
    assert len(found) > 20
    for schema, value in found:
        assert list(faults(schema, value)) == [], value


@pytest.mark.parametrize(
    "body",
    [
        {"cpu": MOST_CORES, "memory": MOST_MEMORY},
        {"instance_requirements": {"cpu": 1, "memory": MOST_MEMORY // MEBIBYTE}},
        {"cpu": 1, "memory": 1, "request_id": "x" * MOST_TEXT, "colour": "red"},
        {"cpu": 1, "memory": "7EiB", "instance_type": None, "target_hosts": None},
        {"cpu": 2.0, "memory": "9EB", "cpus": 1},
    ],
)
def test_the_limits_of_a_request_are_those_that_are_held_to(body: dict[str, Any]) -> None:
    assert list(faults(REQUEST, body)) == []
    read_schedule(json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        {"cpu": MOST_CORES + 1, "memory": 1},
        {"cpu": 0, "memory": 1},
        {"cpu": 1, "memory": 0},
        {"cpu": 1, "memory": MOST_MEMORY + 1},
        {"cpu": 1, "memory": "8EiB"},
        {"cpu": 1, "memory": "10EB"},
        {"cpu": 1, "memory": "1024"},
        {"cpu": 1, "memory": 1, "request_id": "x" * (MOST_TEXT + 1)},
        {"cpu": 1, "memory": 1, "instance_name": ""},
        {"cpu": 1, "memory": 1, "target_hosts": []},
        {"instance_requirements": {"cpu": 1, "memory": MOST_MEMORY // MEBIBYTE + 1}},
        {"instance_requirements": {"cpu": MOST_CORES + 1, "memory": 1}},
        {"instance_requirements": None, "cpu": 1, "memory": 1},
    ],
)
def test_what_is_beyond_a_limit_is_neither_allowed_nor_accepted(body: dict[str, Any]) -> None:
    assert list(faults(REQUEST, body)) != []
    assert not read(body)


texts = st.text(max_size=3) | st.sampled_from(["x" * MOST_TEXT, "x" * (MOST_TEXT + 1)])
anything = st.none() | st.booleans() | st.integers(-1, 2) | st.floats(0, 3) | texts | st.lists(texts, max_size=2)
numbers = st.sampled_from([1, 2.0, 1.5, 0, -1, True, MOST_CORES, MOST_CORES + 1, MOST_MEMORY, MOST_MEMORY + 1])
sizes = st.builds(
    lambda number, suffix: f"{number}{suffix}",
    st.integers(0, 10**19) | st.integers(0, 12),
    st.sampled_from(
        ["", "B", "kB", "KB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB", "PB", "PiB", "EB", "EiB", "iB"]
    ),
)
amount = st.fixed_dictionaries({}, optional={"cpu": numbers | anything, "memory": numbers | sizes | anything})
sound = {"cpu": 2, "memory": 2048}
amounts = st.just(sound) | st.builds(lambda more: {**sound, **more}, amount) | amount
# But for the strategy: which may be asked for is not for the reader to say.
option = st.one_of(
    *(
        st.fixed_dictionaries({name: values | anything})
        for name, values in {
            "target_hosts": st.lists(texts, max_size=2),
            "instance_type": st.sampled_from([*InstanceType, "vm"]),
            "architecture": texts,
            "instance_name": texts,
            "request_id": texts,
            "resource_type": texts,
            "image_alias": texts,
            "dry_run": st.booleans(),
            "colour": anything,
        }.items()
    )
)
bodies = st.builds(lambda one, other: one | other, amounts, option) | st.builds(
    lambda one, other: {"instance_requirements": one, **other}, amounts | anything, option | amounts
)


def read(body: dict[str, Any]) -> bool:
    try:
        read_schedule(json.dumps(body).encode())
    except ApiError:
        return False
    return True


@settings(max_examples=600)
@given(bodies)
def test_a_request_is_accepted_exactly_where_its_description_allows_it(body: dict[str, Any]) -> None:
    described = not list(faults(REQUEST, body))
    place = body.get("instance_requirements", body)
    if not described and isinstance(place, dict) and isinstance(place.get("memory"), str):
        return  # of the texts that are understood as a size, the description has a little less, so that it can be read
    assert described == read(body)


def test_texts_that_say_a_size_are_understood_as_far_as_they_are_described() -> None:
    for number in (1, 7, 9, 10, 999, 10**6 - 1, 10**9 - 1, 10**12 - 1, 10**15 - 1, 10**18 - 1):
        for suffix in ("B", "kB", "KiB", "MB", "MiB", "GB", "GiB", "TB", "TiB", "PB", "PiB", "EB", "EiB"):
            body = {"cpu": 1, "memory": f"{number}{suffix}"}
            described = not list(faults(REQUEST, body))
            assert read(body) or not described, body
            assert described or number > 9 or suffix == "EiB", body


@pytest.mark.parametrize(
    ("method", "path", "status", "headers", "body", "wrong"),
    [
        ("GET", "/healthz", 201, SENT, {"status": "ok"}, "201 is not described"),
        ("GET", "/healthz", 200, SENT, {"status": "ill"}, "'ok' was expected"),
        ("GET", "/healthz", 200, SENT, {"status": "ok", "more": 1}, "'more' was unexpected"),
        ("GET", "/healthz", 200, SENT | {"x-new": "1"}, {"status": "ok"}, "{'x-new'} are not described"),
        ("GET", "/healthz", 200, {"content-type": "application/json"}, {"status": "ok"}, "cache-control is missing"),
        ("GET", "/healthz", 200, SENT | {"content-type": "text/html"}, "ok", "text/html is not described"),
        ("GET", "/readyz", 503, SENT, {}, "retry-after is missing"),
        ("GET", "/nothing", 200, SENT, {}, "/nothing is not described"),
        ("GET", "/nothing", 404, SENT, {"error": "no", "code": "gone"}, "gone is not described"),
        ("GET", "/reservations", 200, SENT, {"reservations": [{}]}, "'id' is a required property"),
    ],
)
def test_an_answer_that_is_not_described_is_found_out(
    method: str, path: str, status: int, headers: dict[str, str], body: object, wrong: str
) -> None:
    with pytest.raises(AssertionError, match=re.escape(wrong)):
        conforms(method, path, status, headers, body)


def test_a_time_that_is_none_is_found_out() -> None:
    claim = {"id": "0" * 32, "expires_at": "tomorrow"}
    assert [*faults({"$ref": "#/components/schemas/Claim"}, claim)] == ["$.expires_at: 'tomorrow' is not a 'date-time'"]


def test_an_error_in_another_form_is_found_out() -> None:
    conforms_as_error(404, SENT, {"error": "no", "code": "not_found"})
    with pytest.raises(AssertionError, match="'error' is a required property"):
        conforms_as_error(404, SENT, {"code": "not_found"})
    with pytest.raises(AssertionError, match="has not the status 400"):
        conforms_as_error(400, SENT, {"error": "no", "code": "not_found"})
