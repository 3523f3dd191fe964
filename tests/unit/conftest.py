"""A configuration to start from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lxdsched.config import Config, ConfigError, Sources, load
from lxdsched.sandbox.certs import KeyPair, make_certificate

STRATEGIES = ("least-allocated", "balanced")


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return make_certificate("client", now=datetime.now(UTC))


@pytest.fixture(scope="module")
def paths(pair: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    certificate, key = pair.write(tmp_path_factory.mktemp("pair"), "client")
    return str(certificate), str(key)


@pytest.fixture
def entry(paths: tuple[str, str]) -> dict[str, Any]:
    return {"host": "https://192.0.2.1:8443", "client_cert": paths[0], "client_key": paths[1]}


def configure(
    hosts: object,
    *,
    options: Mapping[str, str] | None = None,
    file: Path | None = None,
    **environment: str,
) -> Config:
    given = {} if hosts is None else {"LXD_MULTI_HOSTS": json.dumps(hosts)}
    return load(Sources(options or {}, given | environment, str(file) if file else None), STRATEGIES)


def warnings(config: Config) -> list[str]:
    """Return what a configuration warns of, but for hosts whose certificates a restart forgets."""
    return [warning for warning in config.warnings if "on first use" not in warning]


def faults(hosts: object, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configure(hosts, **more)
    return caught.value.faults
