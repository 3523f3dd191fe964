"""What is concluded from lies: an error that says so, or amounts that a machine can have. Never anything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from itertools import chain
from pathlib import Path
from time import process_time
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.fleet import counting, payloads
from lxdsched.fleet.counting import allocating
from lxdsched.fleet.drain import drain_by_cluster, drain_by_config
from lxdsched.fleet.listing import MOST_ROW, MOST_ROWS, read_listing
from lxdsched.fleet.payloads import MOST_CPUS, MOST_NAME, MOST_TEXT, PayloadError, open_envelope, open_metadata
from lxdsched.fleet.settings import Counting, HostSettings
from lxdsched.fleet.work import at_once
from lxdsched.limits import MOST_MEMORY
from lxdsched.model import Allocation, Capacity, InstanceType, Resources, State, View
from lxdsched.web.answers import Moment, hosts
from tests.fleet.lies import LARGE, SMALL, Lie, lies

DATA = Path(__file__).parent.parent / "data" / "lxd"
GIB = 1024**3
SETTINGS = HostSettings("h", "https://h", None, over_commit_percent=200, reserve_memory=2**50)  # type: ignore[arg-type]
SERVER = (DATA / "cluster/k1-1.0.json").read_bytes()
HARDWARE = (DATA / "auth/trusted-_1.0_resources.json").read_bytes()
LISTING = (DATA / "instances-20-running.json").read_bytes()
MEMBER = json.dumps(
    {
        "type": "sync",
        "error_code": 0,
        "error": "",
        "metadata": json.loads((DATA / "cluster/k1-cluster-members-k2-evacuated.json").read_bytes())["metadata"][0],
    }
).encode()
CERTIFICATE = b'{"type":"sync","error_code":0,"error":"","metadata":{"name":"c","restricted":true,"projects":["a"]}}'

T = TypeVar("T")


def said(body: bytes, kind: type[T]) -> T | None:
    """Decode an answer; None where it is refused, or an error by its own word."""
    try:
        envelope = open_envelope(body)
        if envelope.error_code:
            assert envelope.error_code < 1000
            return None
        return open_metadata(envelope, kind)
    except PayloadError as error:
        assert len(str(error)) < 1000
        return None


def offered(body: bytes, hardware: bytes = HARDWARE) -> Capacity | None:
    server, machine = said(body, payloads.Server), said(hardware, payloads.Hardware)
    if server is None or server.environment is None or machine is None:
        return None
    try:
        return counting.capacity(server.environment, machine, SETTINGS)
    except PayloadError:
        return None


def on(name: str = "node", *, clustered: bool = False) -> Capacity:
    size = Resources(8000, 64 * GIB)
    return Capacity(name, size, size, frozenset(range(8)), frozenset(), frozenset(InstanceType), clustered)


def counted(body: bytes, capacity: Capacity | None = None) -> Allocation | None:
    try:
        envelope = open_envelope(body)
        if envelope.error_code:
            return None
        rows, odd = at_once(read_listing(envelope))
    except PayloadError as error:
        assert len(str(error)) < 1000
        return None
    return at_once(allocating(rows, odd, capacity or on(), Counting(), {}))


def show(capacity: Capacity | None, allocation: Allocation) -> None:
    """Say of a host what is said of it to everybody; what cannot be said is an error."""
    view = View("h", State.LIVE, capacity=capacity, allocation=allocation, observed_at=1.0)
    shown = msgspec.json.encode(hosts([view], [], Moment(1.0, 1.0)))
    for amount in json.loads(shown)["hosts"][0]["memory"].values():
        assert -(2**63) <= amount < 2**63


def believable(capacity: Capacity | None) -> None:
    if capacity is None:
        return
    assert 0 < capacity.total.cpu <= MOST_CPUS * 1000
    assert 0 < capacity.total.memory <= MOST_MEMORY
    assert len(capacity.name) <= MOST_NAME
    assert sum(map(len, capacity.architectures)) <= 32 * MOST_NAME
    show(capacity, Allocation())


def plausible(allocation: Allocation | None, rows: int) -> None:
    if allocation is None:
        return
    assert 0 <= allocation.resources.cpu <= rows * 8000
    assert 0 <= allocation.resources.memory <= MOST_MEMORY
    assert 0 <= allocation.counted + allocation.exempt <= rows
    assert all(member.resources.cpu >= 0 for member in allocation.members.values())
    assert all(0 <= member.resources.memory <= MOST_MEMORY for member in allocation.members.values())
    assert all(
        len(label) <= 2 * MOST_NAME + 1 and len(doubt) <= MOST_TEXT for label, doubt in allocation.doubts.items()
    )
    show(on(), allocation)


def each(body: bytes, large: Collection[str], tell: Callable[[Lie], None]) -> int:
    """Tell every small lie everywhere, and every large one where we read; return how many those were."""
    told = 0
    for lie in chain(lies(body), *(lies(body, only, LARGE) for only in large)):
        told += 1
        try:
            tell(lie)
        except Exception as error:
            raise AssertionError(str(lie)[:300]) from error
    return told


def test_no_lie_about_itself_makes_a_host_larger_than_a_machine_can_be() -> None:
    read = ["server_name", "architectures", "driver", "server_version", "auth", "api_extensions", "config", "metadata"]
    assert each(SERVER, read, lambda lie: believable(offered(lie.body))) > 2000


def test_no_lie_about_its_hardware_makes_a_host_larger_than_a_machine_can_be() -> None:
    read = ["total", "id", "online", "threads", "cores", "sockets", "memory", "cpu"]
    assert each(HARDWARE, read, lambda lie: believable(offered(SERVER, lie.body))) > 4000


def test_no_lie_in_one_row_changes_what_the_other_instances_count_as() -> None:
    body = json.dumps(json.loads(LISTING) | {"metadata": json.loads(LISTING)["metadata"][:3]}).encode()
    truth = counted(body)
    assert truth is not None

    def tell(lie: Lie) -> None:
        allocation = counted(lie.body)
        plausible(allocation, 4)
        if allocation is not None and len(lie.path) > 1 and isinstance(lie.path[1], int):
            about = list(truth.members)[lie.path[1]]
            others = {name: member for name, member in truth.members.items() if name != about}
            assert others.items() <= allocation.members.items()

    read = ["name", "status", "type", "project", "location", "expanded_config", "limits.cpu", "metadata"]
    assert each(body, read, tell) > 5000


def test_no_lie_of_a_cluster_about_a_member_is_long_or_breaks_anything() -> None:
    def tell(lie: Lie) -> None:
        member = said(lie.body, payloads.Member)
        why = None if member is None else drain_by_cluster(member)
        assert why is None or len(why) < 3 * MOST_TEXT

    assert each(MEMBER, ["status", "message", "config"], tell) > 500


def test_no_lie_about_our_certificate_lifts_its_restriction() -> None:
    def tell(lie: Lie) -> None:
        certificate = said(lie.body, payloads.Certificate)
        assert certificate is None or certificate.restricted

    assert each(CERTIFICATE, ["restricted", "metadata"], tell) > 200


@pytest.mark.parametrize("value", [*SMALL.values(), *LARGE.values()], ids=[*SMALL, *LARGE])
def test_no_wish_to_be_drained_is_long_or_breaks_anything(value: bytes) -> None:
    server = said(
        b'{"type":"sync","metadata":{"auth":"trusted","config":{"user.lxdsched.drain":%s}}}' % value, payloads.Server
    )
    if server is not None:
        why = drain_by_config(server.config or {}, "node")
        assert why is None or len(why) < 2 * MOST_TEXT


def answered(*rows: object) -> bytes:
    return json.dumps({"type": "sync", "metadata": rows}).encode()


def row(name: str, cpu: str = "2", **more: object) -> dict[str, object]:
    limits = {"limits.cpu": cpu, "limits.memory": "1GiB"}
    return {"name": name, "status": "Running", "type": "container", "expanded_config": limits, **more}


@pytest.mark.parametrize("number", [-1, MOST_CPUS, 2**61 - 1, 2**70])
def test_a_thread_has_a_number_that_linux_can_give_it(number: int) -> None:
    # Of numbers that a set cannot tell apart by their hashes, a few thousand cost minutes.
    cpu = {"total": 1, "sockets": [{"cores": [{"threads": [{"id": number}]}]}]}
    body = json.dumps({"type": "sync", "metadata": {"cpu": cpu, "memory": {"total": 1}}}).encode()
    with pytest.raises(PayloadError, match=r"Expected `int`.*threads\[0\]\.id"):
        open_metadata(open_envelope(body), payloads.Hardware)


def test_an_instance_that_is_listed_twice_counts_once_and_is_doubtful() -> None:
    allocation = counted(answered(row("a"), row("b"), row("a", "0")))
    assert allocation is not None
    assert (allocation.counted, allocation.resources) == (2, Resources(4000, 2 * GIB))
    assert allocation.doubts == {"default/a": "it is listed more than once"}


def test_a_pool_instance_that_is_listed_twice_waits_once() -> None:
    config = {"limits.cpu": "1", "limits.memory": "1GiB", "user.myshoes_resource_type": "small"}
    frozen = row("a", status="Frozen", expanded_config=config)
    allocation = counted(answered(frozen, frozen))
    assert allocation is not None
    assert list(allocation.ready.values()) == [1]


def test_on_a_cluster_an_instance_without_a_member_is_doubtful_and_not_overlooked() -> None:
    nowhere = [row("a"), row("b", location="none"), row("c", location=""), row("d", location="other")]
    allocation = counted(answered(*nowhere, row("e", location="node")), on(clustered=True))
    assert allocation is not None
    assert set(allocation.doubts) == {"default/a", "default/b", "default/c"}
    assert (allocation.counted, allocation.resources.cpu) == (4, 2000)


def test_odd_rows_with_long_names_are_told_apart() -> None:
    odd = [row("n" * 250 + str(number), status=7) for number in range(3)]
    allocation = counted(answered(*odd, row("n" * 300), {"name": 7}))
    assert allocation is not None
    assert (allocation.counted, len(allocation.doubts)) == (5, 5)


def test_what_instances_may_use_together_is_bounded() -> None:
    allocation = counted(answered(*[row(str(n), expanded_config={"limits.memory": "8EiB"}) for n in range(9)]))
    assert allocation is not None
    assert allocation.resources.memory == MOST_MEMORY


@pytest.mark.parametrize("size", ["2EiB", "9999999999999999999EiB", "999999999%"])
def test_what_an_instance_may_use_is_bounded(size: str) -> None:
    plausible(counted(answered(row("a", expanded_config={"limits.memory": size}))), 1)


def test_a_long_row_is_doubtful_and_its_name_is_read() -> None:
    config = {"limits.cpu": "1", "limits.memory": "1GiB", "user.data": "x" * MOST_ROW}
    allocation = counted(answered(row("a"), row("long", expanded_config=config)))
    assert allocation is not None
    assert allocation.doubts == {"default/long": "its row is longer than 1024 KiB"}
    assert allocation.counted == 2


def test_more_rows_than_a_host_can_have_are_no_listing() -> None:
    envelope = open_envelope(answered(*[0] * (MOST_ROWS + 1)))
    with pytest.raises(PayloadError, match="lists 100001 instances"):
        at_once(read_listing(envelope))


def test_a_long_listing_is_read_and_counted_in_many_steps() -> None:
    rows = [row(str(number)) for number in range(5000)]
    reading = read_listing(open_envelope(answered(*rows)))
    assert sum(1 for _ in reading) > 5000
    decoded = at_once(read_listing(open_envelope(answered(*rows))))
    assert sum(1 for _ in allocating(*decoded, on(), Counting(), {})) == 5000


def test_what_is_read_is_the_same_in_steps_and_at_once() -> None:
    rows = [row(str(number)) for number in range(2000)]
    rows[1000]["status"] = 7
    long, short = counted(answered(*rows)), [counted(answered(*rows[at : at + 500])) for at in range(0, 2000, 500)]
    assert long is not None
    assert long.counted == sum(part.counted for part in short if part) == 2000
    assert long.resources.cpu == sum(part.resources.cpu for part in short if part) == 1999 * 2000


def test_an_answer_with_more_details_than_a_machine_has_is_not_decoded() -> None:
    for key in ("architectures", "api_extensions", "config"):
        body = b'{"type":"sync","metadata":{"auth":"x","%s":[%s0]}}' % (key.encode(), b"[]," * 300_000)
        with pytest.raises(PayloadError, match="more than any host"):
            open_metadata(open_envelope(body), payloads.Server)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
fields = ["name", "status", "type", "project", "location", "expanded_config"]
limits = st.dictionaries(
    st.sampled_from(["limits.cpu", "limits.memory", "limits.cpu.allowance", "user.myshoes_runner_name"]),
    st.text(max_size=12) | st.from_regex(r"[0-9]{1,22}([kMGTPE]i?B|%)?", fullmatch=True),
)
any_row = st.fixed_dictionaries(
    {},
    optional={field: json_values | st.sampled_from(["node", "Frozen", "container"]) for field in fields[:-1]}
    | {"expanded_config": limits | json_values},
)


@given(st.lists(any_row | json_values, max_size=8), st.booleans())
def test_whatever_is_listed_is_counted_plausibly(rows: list[object], clustered: bool) -> None:
    plausible(counted(answered(*rows), on(clustered=clustered)), len(rows))


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_answered_is_refused_or_decoded(body: bytes) -> None:
    for kind in (payloads.Server, payloads.Hardware, payloads.Member, payloads.Certificate):
        said(body, kind)
    plausible(counted(body), 200)


def test_no_number_of_a_host_costs_many_times_as_much_as_another() -> None:
    def cost(number: bytes) -> float:
        body = (
            b'{"type": "sync", "metadata": {"auth": "trusted", "config": {"x": ['
            + b",".join([number] * 10_000)
            + b"]}}}"
        )
        began = process_time()
        open_metadata(open_envelope(body), payloads.Server)
        return process_time() - began

    assert min(cost(b"1e308") for _ in range(5)) < 10 * min(cost(b"1.5e7") for _ in range(5)) + 0.01
