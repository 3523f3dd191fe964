"""Where to listen, and which files say who may come in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from lxdsched.listener.tls import Ask
from lxdsched.sandbox.certs import make_authority, make_certificate
from tests.e2e.guarded import revocation_list
from tests.unit.conftest import configure, faults, warnings

NOW = datetime.now(UTC)
PREFIX = "LXD_MULTI_SCHEDULER_"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Settings for a listener with everything that there is."""
    authority = make_authority("ours", now=NOW)
    certificate, key = make_certificate("localhost", now=NOW, issuer=authority).write(tmp_path, "server")
    certificate.write_bytes(certificate.read_bytes() + authority.cert_pem)
    (tmp_path / "ca.crt").write_bytes(authority.cert_pem)
    (tmp_path / "ca.crl").write_bytes(revocation_list(authority) + revocation_list(authority))
    clients = tmp_path / "clients.toml"
    clients.touch(mode=0o600)
    clients.write_text("[ci]\nrights = ['schedule']\nnames = ['ci.example']\n")
    return {
        f"{PREFIX}CLIENTS_FILE": str(clients),
        f"{PREFIX}TLS_CERT": str(certificate),
        f"{PREFIX}TLS_KEY": str(key),
        f"{PREFIX}TLS_CLIENT_CA": str(tmp_path / "ca.crt"),
        f"{PREFIX}TLS_CLIENT_CRL": str(tmp_path / "ca.crl"),
    }


def without(files: dict[str, str], *names: str, **more: str) -> dict[str, str]:
    """Leave some of the settings out, and add others."""
    left = {name: value for name, value in files.items() if name.removeprefix(PREFIX) not in names}
    return left | {PREFIX + name: value for name, value in more.items()}


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("tcp:8080", "tcp:8080"),
        ("tcp:8080:interface=192.0.2.1", "tcp:8080:interface=192.0.2.1"),
        ("unix:/run/x", "unix:/run/x:mode=660"),
        ("unix:/run/x:mode=666", "unix:/run/x:mode=666"),
        ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
    ],
)
def test_an_endpoint_is_one_of_twisteds(entry: dict[str, Any], given: str, endpoint: str) -> None:
    assert configure([entry], LXD_MULTI_SCHEDULER_ENDPOINT=given).listening.endpoint == endpoint


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("8080", "is '8080', not an endpoint"),
        ("tcp:many", "not an endpoint"),
        ("nonsense:1", "not an endpoint"),
        ("unix:", "without the path"),
        ("ssl:8443", "set tls_cert and tls_key"),
        ("tcp:8080:colour=red", "not an endpoint"),
    ],
)
def test_what_is_no_endpoint_is_a_fault(entry: dict[str, Any], given: str, fault: str) -> None:
    (found,) = faults([entry], LXD_MULTI_SCHEDULER_ENDPOINT=given)
    assert found.startswith("LXD_MULTI_SCHEDULER_ENDPOINT: ")
    assert fault in found


def test_an_endpoint_and_a_port_are_one_too_many(entry: dict[str, Any]) -> None:
    found = faults([entry], LXD_MULTI_SCHEDULER_ENDPOINT="tcp:1", LXD_MULTI_SCHEDULER_PORT="2")
    assert found == ["LXD_MULTI_SCHEDULER_PORT: is set, and endpoint says where to listen; give one"]


def test_everything_about_tls_comes_from_its_files(entry: dict[str, Any], files: dict[str, str]) -> None:
    config = configure([entry], **cast(Any, files))
    tls, clients = config.guard.tls, config.guard.clients
    assert tls is not None
    assert clients is not None
    assert (len(tls.identity.chain), len(tls.authorities), len(tls.revocations)) == (1, 1, 2)
    assert tls.ask is Ask.OPTIONAL
    assert [each.client.name for each in clients.entries] == ["ci"]
    assert [each.use for each in config.guard.certificates] == ["tls_cert", "tls_client_ca"]
    assert {str(path) for path in config.reread_files} == set(files.values())


def test_clients_without_certificates_are_not_asked_for_any(entry: dict[str, Any], files: dict[str, str]) -> None:
    Path(files[f"{PREFIX}CLIENTS_FILE"]).write_text("[ci]\nrights = ['schedule']\n")
    tls = configure([entry], **cast(Any, without(files, "TLS_CLIENT_CA", "TLS_CLIENT_CRL"))).guard.tls
    assert tls is not None
    assert tls.ask is Ask.NONE


@pytest.mark.parametrize("name", ["TLS_CERT", "TLS_KEY"])
def test_a_certificate_needs_its_key(entry: dict[str, Any], files: dict[str, str], name: str) -> None:
    assert f"{PREFIX}{name}: is missing" in faults([entry], **without(files, name))[0]


@pytest.mark.parametrize(
    ("left_out", "more", "found"),
    [
        (["TLS_CERT", "TLS_KEY"], {}, ["CLIENT_CA: is set, and there is no tls_cert", "CLIENT_CRL: is set, and there"]),
        (["CLIENTS_FILE"], {}, ["CLIENT_CA: is set, and no clients_file", "CLIENT_CRL: is set, and no clients_file"]),
        (["TLS_CLIENT_CA"], {}, ["CLIENT_CRL: is set, and there is no tls_client_ca"]),
        (
            ["CLIENTS_FILE", "TLS_CLIENT_CA", "TLS_CLIENT_CRL"],
            {"TLS_CLIENT_AUTH": "required"},
            ["CLIENT_AUTH: is set, and no clients_file"],
        ),
        ([], {"TLS_CLIENT_AUTH": "none"}, ["CLIENT_CA: is set, and tls_client_auth", "CLIENT_CRL: is set, and tls_c"]),
    ],
)
def test_what_has_no_effect_is_a_fault(
    entry: dict[str, Any], files: dict[str, str], left_out: list[str], more: dict[str, str], found: list[str]
) -> None:
    told = faults([entry], **without(files, *left_out, **more))
    assert len(told) == len(found)
    assert all(each.startswith(f"{PREFIX}TLS_{fault}") for each, fault in zip(told, found, strict=True)), told


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("TLS_CLIENT_CRL", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "is no revocation list"),
        ("TLS_CLIENT_CRL", "", "holds no revocation list"),
        ("TLS_CLIENT_CA", "", "is empty"),
        ("TLS_KEY", "", "is empty"),
        ("CLIENTS_FILE", "x = 1", "x"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    entry: dict[str, Any], files: dict[str, str], name: str, content: str, fault: str
) -> None:
    Path(files[PREFIX + name]).write_text(content)
    (found,) = faults([entry], **files)
    assert files[PREFIX + name] in found
    assert fault in found


@pytest.mark.parametrize("name", ["TLS_KEY", "CLIENTS_FILE"])
def test_a_file_that_others_can_get_at_is_refused(entry: dict[str, Any], files: dict[str, str], name: str) -> None:
    Path(files[PREFIX + name]).chmod(0o646)
    (found,) = faults([entry], **files)
    assert "chmod" in found


def test_a_certificate_that_has_ended_is_no_fault(entry: dict[str, Any], files: dict[str, str], tmp_path: Path) -> None:
    ended = make_certificate("localhost", now=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1))
    ended.write(tmp_path, "server")
    config = configure([entry], **cast(Any, files))
    assert [each.state(NOW) for each in config.guard.certificates] == ["ended", "good"]


@pytest.mark.parametrize(
    ("left_out", "warning"),
    [
        (["TLS_CLIENT_CA", "TLS_CLIENT_CRL"], "client ci is known by names that no tls_client_ca can have put"),
        (
            ["TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA", "TLS_CLIENT_CRL"],
            "client ci is known by certificates, and the listener asks for none",
        ),
    ],
)
def test_it_warns_of_certificates_that_can_never_count(
    entry: dict[str, Any], files: dict[str, str], left_out: list[str], warning: str
) -> None:
    (found,) = warnings(configure([entry], **cast(Any, without(files, *left_out))))
    assert found.startswith(warning)


@pytest.mark.parametrize("name", ["TLS_CLIENT_CA", "TLS_CLIENT_CRL"])
def test_who_says_whom_to_let_in_is_not_written_by_others(
    entry: dict[str, Any], files: dict[str, str], name: str
) -> None:
    Path(files[PREFIX + name]).chmod(0o666)
    (fault,) = faults([entry], **files)
    assert fault.startswith(f"{PREFIX}{name}: {files[PREFIX + name]}: mode 0666, owner ")
    allowed: dict[str, Any] = files | {f"{PREFIX}ALLOW_EXPOSED_KEYS": "true"}
    (warning,) = warnings(configure([entry], **allowed))
    assert "others can change it" in warning
