"""What a client may write into `POST /schedule`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.model import Demand, InstanceType, Resources
from lxdsched.web.errors import ApiError
from lxdsched.web.requests import read_schedule

GIB = 1024**3


def read(body: object) -> Demand:
    return read_schedule(json.dumps(body).encode()).demand


def documented(**fields: Any) -> dict[str, Any]:
    return {"instance_requirements": {"cpu": 2, "memory": 2048, **fields}}


def refusal(body: bytes) -> str:
    with pytest.raises(ApiError) as caught:
        read_schedule(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    return caught.value.message


def test_the_documented_form_counts_memory_in_mebibytes() -> None:
    assert read(documented()).resources == Resources(2000, 2 * GIB)


def test_the_flat_form_counts_memory_in_bytes() -> None:
    demand = read({"cpu": 2, "memory": 2147483648, "target_hosts": ["https://192.0.2.1:8443"]})
    assert demand == Demand(Resources(2000, 2 * GIB), targets=frozenset({"https://192.0.2.1:8443"}))


@pytest.mark.parametrize(("text", "size"), [("2GiB", 2 * GIB), ("2048MB", 2048 * 10**6), ("1024B", 1024)])
def test_memory_may_be_a_text_with_lxds_suffixes_in_both_forms(text: str, size: int) -> None:
    assert read(documented(memory=text)).resources.memory == size
    assert read({"cpu": 1, "memory": text}).resources.memory == size


def test_a_whole_number_may_be_written_with_a_decimal_point() -> None:
    assert read({"cpu": 2.0, "memory": 1.0}).resources == Resources(2000, 1)


def test_nothing_but_cpu_and_memory_is_required() -> None:
    demand = read({"cpu": 1, "memory": 1, "target_hosts": None, "architecture": None, "instance_type": None})
    assert demand == Demand(Resources(1000, 1))


def test_options_are_read_in_both_forms() -> None:
    options = {"instance_type": "virtual-machine", "architecture": "amd64", "strategy": "balanced", "dry_run": True}
    for body in ({"cpu": 1, "memory": 1}, documented()):
        request = read_schedule(json.dumps(body | options).encode())
        assert request.demand.instance_type is InstanceType.VIRTUAL_MACHINE
        assert request.demand.architecture == "x86_64"
        assert (request.strategy, request.dry_run, request.ignored) == ("balanced", True, ())


def test_unknown_fields_are_ignored_and_named_by_their_path() -> None:
    body = documented(disk=10) | {"memroy": 5, "cpu": 9, "target_hosts": ["a"]}
    request = read_schedule(json.dumps(body).encode())
    assert request.ignored == ("memroy", "cpu", "instance_requirements.disk")
    assert read_schedule(b'{"cpu":1,"memory":1,"cpus":2}').ignored == ("cpus",)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty; it must be a JSON object"),
        (b"  \n", "the body is empty; it must be a JSON object"),
        (b"{", "the body is not JSON: Input data was truncated"),
        (b"cpu=2&memory=3", "the body is not JSON: JSON is malformed: invalid character (byte 0)"),
        (b"\xff", "the body is not JSON: "),
        (b"[1]", "the body: must be a JSON object, not an array"),
        (b"null", "the body: must be a JSON object, not null"),
        (b"{}", "instance_requirements: is missing (or cpu and memory at the top level)"),
        (b'{"instance_requirements": []}', "instance_requirements: must be a JSON object, not an array"),
        (b'{"instance_requirements": {}}', "instance_requirements.cpu: is missing"),
        (b'{"instance_requirements": {"cpu": 2}}', "instance_requirements.memory: is missing"),
        (b'{"cpu": 2}', "memory: is missing"),
        (b'{"memory": 2}', "cpu: is missing"),
        (b'{"cpu": null, "memory": 2}', "cpu: is missing"),
        (b'{"cpu": "2", "memory": 2}', "cpu: must be a whole number of cores, not a text"),
        (b'{"cpu": true, "memory": 2}', "cpu: must be a whole number of cores, not a boolean"),
        (b'{"cpu": 1.5, "memory": 2}', "cpu: must be a whole number of cores, not this number"),
        (b'{"cpu": 1e400, "memory": 2}', "cpu: must be a whole number of cores, not this number"),
        (b'{"cpu": NaN, "memory": 2}', "the body is not JSON: "),
        (b'{"cpu": 0, "memory": 2}', "cpu: must be between 1 and 1000000"),
        (b'{"cpu": -1, "memory": 2}', "cpu: must be between 1 and 1000000"),
        (b'{"cpu": 123456789012345678901234567890, "memory": 2}', "cpu: must be between 1 and 1000000"),
        (b'{"cpu": 1, "memory": 0}', "memory: must be between 1 and 9223372036854775807"),
        (b'{"cpu": 1, "memory": 9223372036854775808}', "memory: must be between 1 and 9223372036854775807"),
        (b'{"cpu": 1, "memory": "2048"}', "memory: a text needs a unit, such as 2048MiB"),
        (b'{"cpu": 1, "memory": "2G"}', "memory: '2G' is not a size such as 2GiB or 500MB"),
        (b'{"cpu": 1, "memory": "0GiB"}', "memory: must be between 1 and 9223372036854775807"),
        (b'{"cpu": 1, "memory": "50%"}', "memory: '50%' is not a size such as 2GiB or 500MB"),
        (b'{"cpu": 1, "memory": []}', "memory: must be a whole number or a text such as 2GiB, not an array"),
        (b'{"cpu":1,"memory":1,"target_hosts":"a"}', "target_hosts: must be an array of hosts, not a text"),
        (b'{"cpu":1,"memory":1,"target_hosts":["a",1]}', "target_hosts[1]: must be a text, not this number"),
        (b'{"cpu":1,"memory":1,"target_hosts":[]}', "target_hosts: names no host; leave it out to allow every host"),
        (b'{"cpu":1,"memory":1,"instance_type":"vm"}', "instance_type: must be one of container, virtual-machine"),
        (b'{"cpu":1,"memory":1,"architecture":""}', "architecture: must have between 1 and 256 characters"),
        (b'{"cpu":1,"memory":1,"strategy":7}', "strategy: must be a text, not this number"),
        (b'{"cpu":1,"memory":1,"dry_run":"yes"}', "dry_run: must be true or false, not a text"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(body: bytes, message: str) -> None:
    assert refusal(body).startswith(message)


def test_a_body_nested_beyond_reason_is_refused() -> None:
    assert refusal(b"[" * 60_000) == "the body is nested too deeply"


def test_mebibytes_beyond_what_a_machine_can_count_are_refused() -> None:
    assert "between 1 and 8796093022207" in refusal(json.dumps(documented(memory=2**50)).encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["cpu", "memory", "instance_requirements", "target_hosts", "strategy", "instance_type", "architecture", "dry_run"]
)


@given(st.dictionaries(keys, json_values | st.fixed_dictionaries({"cpu": json_values, "memory": json_values})))
def test_any_json_is_either_a_demand_or_a_refusal(body: dict[str, Any]) -> None:
    try:
        demand = read(body)
    except ApiError as error:
        assert error.status == 400  # either outcome is right
    else:
        assert demand.resources.cpu >= 1000
        assert demand.resources.memory >= 1


@given(st.binary(max_size=200))
def test_any_bytes_are_either_a_demand_or_a_refusal(body: bytes) -> None:
    try:
        read_schedule(body)
    except ApiError as error:
        assert error.status == 400
