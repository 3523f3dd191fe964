"""Feeds one parser with whatever atheris finds to lead somewhere new in it; `scripts/fuzz TARGET` runs it.

atheris is no dependency: `.venv/bin/pip install atheris` gets it, where there is a wheel of it (for Linux).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed, and is no dependency of ours; to get it: .venv/bin/pip install atheris")

with atheris.instrument_imports(include=["lxdsched", "tomllib", "txredisapi", "encodings.idna"]):
    from lxdsched.config import SETTINGS
    from tests.fuzz import oracles
    from tests.fuzz.said import heard

CORPUS: Final = Path(__file__).parents[2] / ".fuzz"
"""Where what was found to lead somewhere is kept, a directory a target."""

_scratch = Path(tempfile.mkdtemp(prefix="lxdsched-fuzz-")) / "lxdsched.toml"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _event(data: bytes) -> None:
    parts = data.split(b"\0")
    pairs = zip(parts[::2], parts[1::2], strict=False)
    oracles.event({_text(key): _text(value) if value[:1] != b"!" else value for key, value in pairs})


TARGETS: Final[dict[str, tuple[Callable[[bytes], Any], tuple[bytes, ...]]]] = {
    "request": (
        oracles.request,
        (b'{"instance_requirements":{"cpu":2,"memory":2048}}', b'{"cpu":2,"memory":"2GiB","target_hosts":["a"]}'),
    ),
    "limits": (
        lambda data: oracles.limits(_text(data)),
        (b"0-3,5", b"2GiB", b"50%", b"25ms/100ms", b"sockets=1,cores=2"),
    ),
    "toml": (
        lambda data: oracles.toml(data, _scratch),
        (b'port = 1\nhosts = ["a"]\n', b'[[hosts]]\nhost = "a"\nlabels = { a = "b" }\n', b'redis_url = ["redis://a"]'),
    ),
    "variable": (lambda data: oracles.variable(data[0] if data else 0, _text(data[1:])), (b"\0[{}]", b"\x061GiB")),
    "urls": (
        lambda data: oracles.urls(_text(data)),
        (b"redis+sentinel://u:p@a,[::1]:1/n/0", b"https://a:1", b"unix:///a?db=1"),
    ),
    "event": (_event, (b"log_format\0{x}\0x\0y", b"log_text\0a\nb\0log_level\0!")),
    "record": (
        lambda data: (oracles.record(data), oracles.mirrored([data])),
        (
            b'{"expires":9,"cpu":1,"memory":1,"promised":true,"created":1,"host":"a","candidates":["a"],"by":"","demand":{}}',
        ),
    ),
    "wire": (lambda data: heard(data.split(b"|")), (b"*2\r\n+a\r\n|:1\r\n", b"$3\r\nabc\r\n", b"-ERR x\r\n")),
}
"""What is fed, and with what to begin."""


WORDS: Final = [
    *(setting.name for setting in SETTINGS),
    *("instance_requirements", "memory", "target_hosts", "instance_name", "request_id", "instance_type", "dry_run"),
    *(
        "architecture",
        "resource_type",
        "image_alias",
        "container",
        "null",
        "true",
        "1e308",
        "1e400",
        "99999999999999999999",
    ),
    *(
        "expires",
        "promised",
        "created",
        "candidates",
        "demand",
        "pool",
        "GiB",
        "kB",
        "%",
        "sockets=",
        "cores=",
        "0-",
        "ms/",
    ),
    *(
        "redis://",
        "rediss+sentinel://",
        "unix://",
        "https://",
        "[::1]",
        "%00",
        "?db=",
        "log_format",
        "log_failure",
        "xn--",
    ),
]
"""What atheris cannot guess where a parser is not written in Python."""


def main() -> None:
    """Run one target until it fails, or until libFuzzer's options end it; with files named, feed these alone."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"name a target: {', '.join(TARGETS)}")
    target, seeds = TARGETS[sys.argv[1]]
    corpus = CORPUS / sys.argv[1]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = CORPUS / "words"
    words.write_text("".join(f'"{word}"\n' for word in WORDS))
    options = [f"-dict={words}", "-max_len=8192", "-timeout=30", "-rss_limit_mb=2048", f"-artifact_prefix={corpus}-"]
    given = sys.argv[2:]
    where = [] if any(not each.startswith("-") for each in given) else [str(corpus)]
    atheris.Setup([sys.argv[0], *options, *given, *where], lambda data: target(data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
