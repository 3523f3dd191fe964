"""LXD's grammar of limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdsched.limits import (
    LimitError,
    Share,
    Unlimited,
    _existing,
    allowance_share,
    cpu_share,
    instance_share,
    memory_share,
    parse_size,
)
from lxdsched.model import Capacity, InstanceType, Resources

# The expression by which LXD itself accepts `limits.cpu` (LXD's instance options documentation).
LXD_CPU = re.compile(r"^(?:[0-9]+(?:[,-][0-9]+)?)(?:,[0-9]+(?:[,-][0-9]+)*)?$")

GIB = 1024**3
EIGHT = frozenset(range(8))
HOST = Capacity(
    name="node-1",
    total=Resources(8000, 16 * GIB),
    usable=Resources(8000, 16 * GIB),
    cpus=EIGHT,
    architectures=frozenset({"x86_64"}),
    instance_types=frozenset(InstanceType),
)


def container(**limits: str) -> Share:
    config = {"limits." + name.replace("_", "."): value for name, value in limits.items()}
    return instance_share(config, InstanceType.CONTAINER, HOST, Unlimited())


def machine(**limits: str) -> Share:
    config = {"limits." + name.replace("_", "."): value for name, value in limits.items()}
    return instance_share(config, InstanceType.VIRTUAL_MACHINE, HOST, Unlimited())


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("1B", 1),
        ("1kB", 1000),
        ("3MB", 3 * 1000**2),
        ("2GB", 2 * 1000**3),
        ("1TB", 1000**4),
        ("1PB", 1000**5),
        ("1EB", 1000**6),
        ("1KiB", 1024),
        ("2MiB", 2 * 1024**2),
        ("4GiB", 4 * 1024**3),
        ("1TiB", 1024**4),
        ("1PiB", 1024**5),
        ("1EiB", 1024**6),
    ],
)
def test_a_size_is_a_whole_number_with_one_of_lxds_suffixes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "B", "1.5GiB", "1G", "1KB", "1kiB", "1gib", "-1", "+1", " 1GiB", "1 GiB", "1GiB\n", "٣GiB", "1e3", "50%"],
)
def test_what_lxd_does_not_take_for_a_size_is_an_error_that_shows_it(text: str) -> None:
    with pytest.raises(LimitError) as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)


@given(st.integers(0, 10**15), st.sampled_from(["", "B", "kB", "MB", "GB", "KiB", "MiB", "GiB"]))
def test_a_size_grows_with_its_number(number: int, suffix: str) -> None:
    assert parse_size(f"{number + 1}{suffix}") - parse_size(f"{number}{suffix}") == parse_size(f"1{suffix}")


@pytest.mark.parametrize(("text", "size"), [("50%", 8 * GIB), ("150%", 24 * GIB), ("100%", 16 * GIB), ("1GiB", GIB)])
def test_memory_is_a_size_or_a_share_of_the_hosts_memory(text: str, size: int) -> None:
    assert memory_share(text, 16 * GIB) == size


def test_a_share_of_memory_is_rounded_up() -> None:
    assert memory_share("33%", 100 * 3 + 1) == 100  # 99.33


@pytest.mark.parametrize("text", ["0", "0%", "0MiB", "-5%", "5.5%", "%"])
def test_memory_of_nothing_is_an_error(text: str) -> None:
    with pytest.raises(LimitError):
        memory_share(text, 16 * GIB)


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("2", 2),
        ("8", 8),
        ("0", 8),
        ("64", 8),
        ("999999999", 8),
        ("0-3", 4),
        ("1,3,5", 3),
        ("0-0", 1),
        ("0,0", 1),
        ("0-3,2-5", 6),
        ("6-20", 2),
        ("20-30", 8),
        ("20,30", 8),
        ("3-1", 8),
        ("0-999999999", 8),
        ("sockets=1,cores=2,threads=2", 4),
        ("cores=2", 2),
        ("sockets=2,cores=8,threads=2", 8),
    ],
)
def test_cpus_are_counted_or_pinned_and_what_the_host_lacks_means_every_cpu(text: str, cores: int) -> None:
    assert cpu_share(text, EIGHT) == cores * 1000


@pytest.mark.parametrize(
    "text",
    ["-1", "1.5", "a", "0-", "-3", "1,,2", "0-1-2", "2,3-4-5", " 1", "1\n", "٣", "cores=", "cores=2,cores=3", "x=1"],
)
def test_cpus_that_cannot_be_read_are_an_error_that_shows_them(text: str) -> None:
    with pytest.raises(LimitError) as caught:
        cpu_share(text, EIGHT)
    assert repr(text) in str(caught.value)


def test_pins_of_endless_length_are_an_error_and_cost_nothing() -> None:
    with pytest.raises(LimitError, match="more than 8192 characters"):
        cpu_share("0," * 200_000 + "0", EIGHT)


def test_pins_count_by_the_numbers_of_the_hosts_own_cpus() -> None:
    assert cpu_share("0-3", frozenset({2, 3, 8, 9})) == 2000


numbers = st.integers(0, 40)
parts = st.one_of(numbers.map(str), st.tuples(numbers, numbers).map(lambda pair: f"{pair[0]}-{pair[1]}"))


@given(st.lists(parts, min_size=1, max_size=5), st.frozensets(st.integers(0, 31), min_size=1))
def test_any_set_of_pins_entitles_to_at_least_one_and_at_most_every_cpu(pins: list[str], cpus: frozenset[int]) -> None:
    share = cpu_share(",".join([*pins, "0"]), cpus)
    assert 1000 <= share <= len(cpus) * 1000
    pinned = {0}
    for pin in pins:
        first, _, last = pin.partition("-")
        pinned |= set(range(int(first), int(last or first) + 1))
    assert share == (len(pinned & cpus) or len(cpus)) * 1000


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=30),
    st.frozensets(st.integers(0, 300), max_size=100),
)
def test_the_existing_cpus_are_those_in_any_of_the_ranges(ranges: list[tuple[int, int]], cpus: frozenset[int]) -> None:
    naive = {cpu for cpu in cpus if any(first <= cpu <= last for first, last in ranges)}
    assert _existing(ranges, cpus) == len(naive)


class Cpus(Collection[int]):
    """CPUs that count how often one of them is looked for or compared with something."""

    def __init__(self, count: int) -> None:
        self.looks = 0
        self._cpus = frozenset(Cpu(number, self._look) for number in range(count))

    def __contains__(self, cpu: object) -> bool:
        self._look()
        return cpu in self._cpus

    def __iter__(self) -> Iterator[int]:
        return iter(self._cpus)

    def __len__(self) -> int:
        return len(self._cpus)

    def _look(self) -> None:
        self.looks += 1
        assert self.looks < 20 * len(self._cpus), "it looks at every CPU again and again"


class Cpu(int):
    """The number of a CPU, which tells when it is compared."""

    look: Callable[[], None]

    def __new__(cls, number: int, look: Callable[[], None]) -> Cpu:
        self = super().__new__(cls, number)
        self.look = look
        return self

    def __lt__(self, other: int) -> bool:
        self.look()
        return int(self) < int(other)

    def __le__(self, other: int) -> bool:
        self.look()
        return int(self) <= int(other)

    def __gt__(self, other: int) -> bool:
        self.look()
        return int(self) > int(other)

    def __ge__(self, other: int) -> bool:
        self.look()
        return int(self) >= int(other)


@pytest.mark.parametrize(
    ("ranges", "pinned"),
    [
        ([(number, 65535) for number in range(1000)], 65536),
        ([(0, 65535)] * 1000, 65536),
        ([(number * 60, number * 60 + 1) for number in range(1000)], 2000),
        ([(0, number) for number in range(9999, 8999, -1)], 10000),
        ([(0, 999_999_999)] * 600, 65536),
        ([(number * 100, 999_999_999) for number in range(1, 600)], 65436),
    ],
)
def test_the_longest_pins_do_not_look_at_every_cpu_of_a_huge_host_once_for_each_pin(
    ranges: list[tuple[int, int]], pinned: int
) -> None:
    cpus = Cpus(65536)
    assert _existing(ranges, cpus) == pinned
    assert cpus.looks > 0


def test_the_longest_pins_are_read_on_a_huge_host() -> None:
    text = ",".join(f"{number}-65535" for number in range(10, 828))
    assert 8000 < len(text) <= 8192
    assert cpu_share(text, frozenset(range(65536))) == (65536 - 10) * 1000


@given(st.text(st.sampled_from("0123456789,-")))
def test_whatever_lxd_accepts_is_read_or_named_as_unreadable_and_nothing_else_breaks(text: str) -> None:
    try:
        share = cpu_share(text, EIGHT)
    except LimitError:
        # LXD's expression lets chains such as 1,2-3-4 pass, which its own parser then refuses.
        assert not LXD_CPU.match(text) or re.search(r"-[0-9]+-", text) or re.search(r"[0-9]{10}", text)
    else:
        assert 0 < share <= 8000
        assert LXD_CPU.match(text) or text.count("-") > 1 or text.count(",") > 1


@pytest.mark.parametrize(
    ("text", "millicores"),
    [
        ("25ms/100ms", 250),
        ("200ms/100ms", 2000),
        ("1ms/3ms", 334),
        ("25/100", 250),
        ("50%", None),
        ("0%", None),
        ("-5%", None),
    ],
)
def test_a_hard_allowance_caps_and_a_soft_one_does_not(text: str, millicores: int | None) -> None:
    assert allowance_share(text) == millicores


@pytest.mark.parametrize("text", ["0ms/100ms", "25ms/0ms", "25ms", "ms/ms", "-1ms/100ms", "25s/100s", "/", ""])
def test_an_allowance_that_cannot_be_applied_is_an_error(text: str) -> None:
    with pytest.raises(LimitError):
        allowance_share(text)


def test_a_container_with_both_limits_has_just_these() -> None:
    assert container(cpu="2", memory="2GiB") == Share(Resources(2000, 2 * GIB))


def test_a_container_without_a_limit_counts_as_configured_and_says_so() -> None:
    assert container(cpu="2") == Share(Resources(2000, 0), unlimited=True)
    assert container(memory="1GiB") == Share(Resources(0, GIB), unlimited=True)
    share = instance_share({}, InstanceType.CONTAINER, HOST, Unlimited(cpu=500, memory=GIB))
    assert share == Share(Resources(500, GIB), unlimited=True)


def test_an_empty_limit_is_no_limit() -> None:
    assert container(cpu="", memory="").unlimited


def test_a_hard_allowance_limits_a_container_even_without_a_count() -> None:
    assert container(cpu_allowance="25ms/100ms", memory="1GiB") == Share(Resources(250, GIB))
    assert container(cpu="2", cpu_allowance="25ms/100ms", memory="1GiB") == Share(Resources(250, GIB))
    assert container(cpu="2", cpu_allowance="900ms/100ms", memory="1GiB") == Share(Resources(2000, GIB))
    assert container(cpu_allowance="50%", memory="1GiB").unlimited


def test_a_virtual_machine_without_limits_has_lxds_defaults() -> None:
    assert machine() == Share(Resources(1000, GIB))
    assert machine(cpu="4", memory="8GiB") == Share(Resources(4000, 8 * GIB))
    assert machine(cpu="4", cpu_allowance="25ms/100ms").resources.cpu == 4000


@pytest.mark.parametrize("key", ["cpu", "memory", "cpu_allowance"])
def test_an_unreadable_limit_is_named_by_its_key(key: str) -> None:
    with pytest.raises(LimitError, match=f"^limits.{key.replace('_', '.')}: 'nonsense' "):
        container(**{key: "nonsense"})
