"""How the Redis is configured, and how every fault in it is found without showing a password."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lxdsched.config import Config
from lxdsched.config.redis import parse_url
from lxdsched.config.values import Fault
from lxdsched.ledger.settings import Account, RedisSettings, RedisTls, TcpAddress, UnixAddress
from lxdsched.sandbox.certs import make_authority
from lxdsched.tls import Authority, SystemAuthority
from tests.support import write_secret
from tests.unit.conftest import configure, faults, warnings

URL = "LXD_MULTI_SCHEDULER_REDIS_URL"


def redis(config: Config) -> RedisSettings:
    assert config.redis is not None
    return config.redis


def test_without_a_redis_there_is_none(entry: dict[str, Any]) -> None:
    config = configure([entry])
    assert (config.redis, config.on_ledger_failure) == (None, "answer")


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("redis://redis-1", RedisSettings((TcpAddress("redis-1", 6379),))),
        ("redis://redis-1/", RedisSettings((TcpAddress("redis-1", 6379),))),
        ("redis://192.0.2.1:7000/3", RedisSettings((TcpAddress("192.0.2.1", 7000),), database=3)),
        ("redis://[2001:db8::1]", RedisSettings((TcpAddress("2001:db8::1", 6379),))),
        ("redis://[2001:db8::1]:7000,b:1,b:1", RedisSettings((TcpAddress("2001:db8::1", 7000), TcpAddress("b", 1)))),
        ("redis://joe:p%40ss%2f@a", RedisSettings((TcpAddress("a"),), account=Account("joe", "p@ss/"))),
        ("redis://:p:a@ss@a", RedisSettings((TcpAddress("a"),), account=Account(None, "p:a@ss"))),
        ("rediss://a", RedisSettings((TcpAddress("a"),), tls=RedisTls(SystemAuthority()))),
        ("redis+sentinel://s1,s2:7/fleet", RedisSettings((TcpAddress("s1", 26379), TcpAddress("s2", 7)), "fleet")),
        ("redis+sentinel://s1/fleet/2", RedisSettings((TcpAddress("s1", 26379),), "fleet", database=2)),
        (
            "rediss+sentinel://:pw@s1/fleet",
            RedisSettings((TcpAddress("s1", 26379),), "fleet", Account(None, "pw"), tls=RedisTls(SystemAuthority())),
        ),
        ("unix:/run/redis.sock", RedisSettings((UnixAddress("/run/redis.sock"),))),
        ("unix:///run/redis.sock?db=2", RedisSettings((UnixAddress("/run/redis.sock"),), database=2)),
        ("unix://:pw@/a%20b", RedisSettings((UnixAddress("/a b"),), account=Account(None, "pw"))),
    ],
)
def test_a_url_says_where_the_redis_is(url: str, settings: RedisSettings, entry: dict[str, Any]) -> None:
    assert redis(configure([entry], LXD_MULTI_SCHEDULER_REDIS_URL=url)) == settings


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("hunter2", "must begin with one of redis://, rediss://, redis+sentinel://, rediss+sentinel://, unix://"),
        ("http://:hunter2@a", "must begin with one of"),
        ("redis+unix:///hunter2", "must begin with one of"),
        ("redis://:hunter2@", "its address number 1 is not HOST:PORT"),
        ("redis://a,:hunter2@b,", "its address number 2 is not HOST:PORT"),
        ("redis://:hunter2@a:port", "its address number 1 has a port that is not between 1 and 65535"),
        ("redis://:hunter2@a:65536", "its address number 1 has a port that is not between 1 and 65535"),
        ("redis://:hunter2@a:0", "its address number 1 has a port that is not between 1 and 65535"),
        ("redis://:hunter2@2001:db8::1", "its address number 1 has a port that is not between 1 and 65535"),
        ("redis://:hunter2@[2001:db8::1", "its address number 1 is not [IPv6]:PORT"),
        ("redis://:hunter2@[a]:1", "its address number 1 is not [IPv6]:PORT"),
        ("redis://:hunter2@[::1]6379", "its address number 1 is not [IPv6]:PORT"),
        ("redis://:hunter2@a b", "its address number 1 is not HOST:PORT"),
        ("redis://:hun/ter2@a", "has an @ behind the first / or ?: write these as %2F and %3F in a password"),
        ("redis://:hun?ter2@a", "has an @ behind the first / or ?"),
        ("redis://:hun#ter2@a", "has a #, which must be written as %23"),
        ("redis://:hunter2%ff@a", "has a %-sign followed by what is not UTF-8"),
        ("redis://:hunter2@a/x", "names a database that is not a whole number"),
        ("redis://:hunter2@a/1/2", "names a database that is not a whole number"),
        ("redis://:hunter2@a/-1", "names a database that is not a whole number"),
        ("redis://:hunter2@a?db=1", "has a query, and only unix:///PATH has one"),
        ("redis+sentinel://:hunter2@a", "does not name what the Sentinels watch"),
        ("redis+sentinel://:hunter2@a/b c", "does not name what the Sentinels watch"),
        ("redis+sentinel://:hunter2@a/b/c", "names a database that is not a whole number"),
        ("unix://:hunter2@path", "must be unix:///PATH, with an absolute path"),
        ("unix:path", "must be unix:///PATH, with an absolute path"),
        ("unix://:hunter2@/path?database=1", "'database' is not known in a query, only db is"),
        ("unix://:hunter2@/path?db=x", "names a database that is not a whole number"),
        ("redis://hunter2@a", "has a user and no password"),
    ],
)
def test_what_is_wrong_with_a_url_is_said_without_the_password(url: str, fault: str, entry: dict[str, Any]) -> None:
    (found,) = faults([entry], LXD_MULTI_SCHEDULER_REDIS_URL=url)
    assert found.startswith(f"{URL}: {fault}")
    assert "hun" not in found
    assert "ter2" not in found


def test_nothing_that_is_shown_has_a_password(entry: dict[str, Any], tmp_path: Path) -> None:
    write_secret(tmp_path / "pw", "hunter2\n")
    config = configure(
        [entry],
        LXD_MULTI_SCHEDULER_REDIS_SENTINEL_PASSWORD_FILE=str(tmp_path / "pw"),
        LXD_MULTI_SCHEDULER_REDIS_URL="rediss+sentinel://joe:hunter2@s1,s2/fleet/2",
    )
    assert redis(config).sentinel_account.password == "hunter2"
    assert "hunter2" not in repr(config)
    assert redis(config).shown == "rediss+sentinel://s1:26379,s2:26379/fleet/2"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@a,[::1]:7", "redis://a:6379,[::1]:7"),
        ("rediss://a/1", "rediss://a:6379/1"),
        ("unix://:pw@/run/redis.sock?db=2", "unix:/run/redis.sock?db=2"),
    ],
)
def test_it_is_shown_as_a_url(url: str, shown: str, entry: dict[str, Any]) -> None:
    assert redis(configure([entry], LXD_MULTI_SCHEDULER_REDIS_URL=url)).shown == shown


def test_the_file_may_hold_several_urls(entry: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "lxdsched.toml"
    write_secret(file, 'redis_url = ["redis://:pw@a/1", "redis://:pw@b:7/1"]\n')
    assert redis(configure([entry], file=file)) == RedisSettings(
        (TcpAddress("a"), TcpAddress("b", 7)), account=Account(None, "pw"), database=1
    )


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ('["redis://:hunter2@a", "redis://b"]', "its URLs differ in more than the addresses"),
        ('["redis://a", "rediss://a"]', "its URLs differ in more than the addresses"),
        ('["redis://a/1", "redis://a/2"]', "its URLs differ in more than the addresses"),
        ("[]", "is neither a URL nor a list of URLs"),
        ('["redis://a", 3]', "is neither a URL nor a list of URLs"),
        ("{ host = 'a' }", "is neither a URL nor a list of URLs"),
    ],
)
def test_urls_that_do_not_agree_are_a_fault(value: str, fault: str, entry: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "lxdsched.toml"
    write_secret(file, f"redis_url = {value}\n")
    assert faults([entry], file=file) == [f"{file}: redis_url: {fault}"]


@pytest.mark.parametrize(
    ("addr", "address"),
    [
        ("redis-1:7000", TcpAddress("redis-1", 7000)),
        (":7000", TcpAddress("localhost", 7000)),
        ("[::1]:7000", TcpAddress("::1", 7000)),
        ("redis-1", TcpAddress("redis-1", 6379)),
    ],
)
def test_the_variable_of_other_programs_will_do(addr: str, address: TcpAddress, entry: dict[str, Any]) -> None:
    assert redis(configure([entry], REDIS_ADDR=addr)) == RedisSettings((address,))


def test_a_url_wins_over_the_variable_of_other_programs_wherever_it_is(entry: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "lxdsched.toml"
    file.write_text('redis_url = "redis://from-file"\n')
    assert redis(configure([entry], REDIS_ADDR="other:1", file=file)).addresses == (TcpAddress("from-file"),)
    assert configure([entry], REDIS_ADDR="").redis is None


@pytest.mark.parametrize("addr", ["redis://a", "a:x", "a:0", "joe@a:1", "a b:1"])
def test_a_variable_of_other_programs_that_is_no_address_is_a_fault(addr: str, entry: dict[str, Any]) -> None:
    (found,) = faults([entry], REDIS_ADDR=addr)
    assert found.startswith("REDIS_ADDR: ")


def test_a_url_for_an_address_is_told_where_it_belongs(entry: dict[str, Any]) -> None:
    assert faults([entry], REDIS_ADDR="redis://:hunter2@a") == [
        "REDIS_ADDR: must be HOST:PORT; a URL belongs into redis_url"
    ]


def test_passwords_come_from_files(entry: dict[str, Any], tmp_path: Path) -> None:
    write_secret(tmp_path / "servers", "pässword \r\n")
    write_secret(tmp_path / "sentinels", "other")
    config = configure(
        [entry],
        LXD_MULTI_SCHEDULER_REDIS_PASSWORD_FILE=str(tmp_path / "servers"),
        LXD_MULTI_SCHEDULER_REDIS_SENTINEL_USERNAME="ann",
        LXD_MULTI_SCHEDULER_REDIS_SENTINEL_PASSWORD_FILE=str(tmp_path / "sentinels"),
        LXD_MULTI_SCHEDULER_REDIS_URL="redis+sentinel://joe@a/fleet",
    )
    assert redis(config).account == Account("joe", "pässword ")
    assert redis(config).sentinel_account == Account("ann", "other")


@pytest.mark.parametrize("content", [b"", b"\n", b"hunter2\nhunter3\n", b"\xff\n"])
def test_a_password_file_holds_one_line(content: bytes, entry: dict[str, Any], tmp_path: Path) -> None:
    path = write_secret(tmp_path / "pw", content)
    (found,) = faults([entry], LXD_MULTI_SCHEDULER_REDIS_PASSWORD_FILE=str(path), REDIS_ADDR="a:1")
    assert found.startswith(f"LXD_MULTI_SCHEDULER_REDIS_PASSWORD_FILE: {path}: ")
    assert "hunter" not in found


def test_all_that_is_wrong_is_found_at_once(entry: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "lxdsched.toml"
    write_secret(tmp_path / "pw", "hunter2\n")
    write_secret(
        file,
        f"""
        redis_url = "redis://:hunter2@a"
        redis_password_file = "{tmp_path}/pw"
        redis_ca = "/nowhere"
        redis_cert = "/nowhere"
        redis_sentinel_username = "ann"
        redis_timeout = 0.001
        redis_prefix = "fleet{{1}}"
        on_ledger_failure = "panic"
        """,
    )
    assert faults([entry], file=file) == [
        f"{file}: redis_timeout: is not between 0.01 and 86400 seconds",
        f"{file}: redis_prefix: is 'fleet{{1}}': braces and control characters are not allowed",
        f"{file}: on_ledger_failure: is 'panic', not one of answer, refuse",
        f"{file}: redis_ca: is set, and the Redis is not reached by rediss://",
        f"{file}: redis_cert: is set, and the Redis is not reached by rediss://",
        f"{file}: redis_password_file: the URL of the Redis has a password too, give one",
        f"{file}: redis_sentinel_username: is set, and there is no Sentinel",
    ]


def test_settings_of_a_redis_without_one_are_faults(entry: dict[str, Any]) -> None:
    assert faults([entry], LXD_MULTI_SCHEDULER_REDIS_CA="/x", LXD_MULTI_SCHEDULER_REDIS_PASSWORD_FILE="/x") == [
        "LXD_MULTI_SCHEDULER_REDIS_CA: is set, and no Redis is set",
        "LXD_MULTI_SCHEDULER_REDIS_PASSWORD_FILE: is set, and no Redis is set",
    ]


def test_a_sentinels_user_without_its_password_is_a_fault(entry: dict[str, Any]) -> None:
    (found,) = faults(
        [entry],
        LXD_MULTI_SCHEDULER_REDIS_SENTINEL_USERNAME="ann",
        LXD_MULTI_SCHEDULER_REDIS_URL="redis+sentinel://a/fleet",
    )
    assert found == "LXD_MULTI_SCHEDULER_REDIS_SENTINEL_USERNAME: has no redis_sentinel_password_file"


def test_tls_has_authorities_and_a_certificate_of_our_own(
    entry: dict[str, Any], paths: tuple[str, str], tmp_path: Path
) -> None:
    ca = make_authority("ca", now=datetime.now(UTC))
    (tmp_path / "ca.crt").write_bytes(ca.cert_pem)
    config = configure(
        [entry],
        LXD_MULTI_SCHEDULER_REDIS_CA=str(tmp_path / "ca.crt"),
        LXD_MULTI_SCHEDULER_REDIS_CERT=paths[0],
        LXD_MULTI_SCHEDULER_REDIS_KEY=paths[1],
        LXD_MULTI_SCHEDULER_REDIS_TIMEOUT="2",
        LXD_MULTI_SCHEDULER_REDIS_PREFIX="fleet-1",
        LXD_MULTI_SCHEDULER_ON_LEDGER_FAILURE="Refuse",
        LXD_MULTI_SCHEDULER_REDIS_URL="rediss://a",
    )
    settings = redis(config)
    assert settings.tls is not None
    assert settings.tls.trust == Authority((ca.certificate,))
    assert settings.tls.identity is not None
    assert settings.tls.identity.fingerprint == config.hosts[0].identity.fingerprint
    assert (settings.timeout, settings.prefix, config.on_ledger_failure) == (2.0, "fleet-1", "refuse")


def test_files_that_hold_something_else_are_faults(
    entry: dict[str, Any], paths: tuple[str, str], tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    found = faults(
        [entry],
        LXD_MULTI_SCHEDULER_REDIS_CA=str(empty),
        LXD_MULTI_SCHEDULER_REDIS_CERT=str(tmp_path / "no.crt"),
        LXD_MULTI_SCHEDULER_REDIS_KEY=paths[1],
        LXD_MULTI_SCHEDULER_REDIS_URL="rediss://a",
    )
    assert len(found) == 2
    assert found[0].startswith(f"LXD_MULTI_SCHEDULER_REDIS_CA: {empty}: is empty")
    assert found[1] == f"LXD_MULTI_SCHEDULER_REDIS_CERT: {tmp_path}/no.crt: No such file or directory"


def test_files_are_looked_at_though_the_url_cannot_be_read(entry: dict[str, Any]) -> None:
    found = faults([entry], LXD_MULTI_SCHEDULER_REDIS_CA="/nowhere", LXD_MULTI_SCHEDULER_REDIS_URL="rediss://:hunter2@")
    assert len(found) == 2
    assert found[1] == "LXD_MULTI_SCHEDULER_REDIS_CA: /nowhere: No such file or directory"


def test_a_certificate_comes_with_its_key(entry: dict[str, Any], paths: tuple[str, str]) -> None:
    (alone,) = faults([entry], LXD_MULTI_SCHEDULER_REDIS_CERT=paths[0], LXD_MULTI_SCHEDULER_REDIS_URL="rediss://a")
    assert alone == "LXD_MULTI_SCHEDULER_REDIS_KEY: is missing, and redis_cert is set"
    (wrong,) = faults(
        [entry],
        LXD_MULTI_SCHEDULER_REDIS_CERT=paths[0],
        LXD_MULTI_SCHEDULER_REDIS_KEY=paths[0],
        LXD_MULTI_SCHEDULER_REDIS_URL="rediss://a",
    )
    assert wrong.startswith(f"LXD_MULTI_SCHEDULER_REDIS_KEY: {paths[0]}: holds a certificate and no private key")


@pytest.mark.parametrize(
    "garbage", ["redis://\udcff", "redis://[", "redis://]:1", "redis://:@", "unix://", "://", "redis:///1"]
)
def test_no_url_breaks_it(garbage: str) -> None:
    with pytest.raises(Fault):
        parse_url(garbage)


@pytest.mark.parametrize(
    "url", ["redis://:hunter2@a", "rediss://joe:hunter2@a", "redis://:hun/ter2@a", "unix://:hunter2@/s"]
)
def test_a_password_on_the_command_line_is_refused_and_not_repeated(url: str, entry: dict[str, Any]) -> None:
    (found,) = faults([entry], options={"redis-url": url})
    assert found.startswith("--redis-url: has a password, which everyone on this machine sees in ps: ")
    assert "hun" not in found


def test_a_url_without_a_password_may_be_on_the_command_line(entry: dict[str, Any], tmp_path: Path) -> None:
    file = write_secret(tmp_path / "pw", "hunter2")
    config = configure([entry], options={"redis-url": "redis://joe@a", "redis-password-file": str(file)})
    assert redis(config).account == Account("joe", "hunter2")


@pytest.mark.parametrize("name", ["redis_password_file", "redis_sentinel_password_file"])
def test_a_password_file_that_others_can_read_is_refused(name: str, entry: dict[str, Any], tmp_path: Path) -> None:
    file = write_secret(tmp_path / "pw", "hunter2")
    file.chmod(0o644)
    variable = f"LXD_MULTI_SCHEDULER_{name.upper()}"
    given: dict[str, Any] = {URL: "redis+sentinel://a/fleet", variable: str(file)}
    (found,) = faults([entry], **given)
    assert found.startswith(f"{variable}: {file}: mode 0644, ")
    assert "hunter2" not in found
    config = configure([entry], **given, LXD_MULTI_SCHEDULER_ALLOW_EXPOSED_KEYS="yes")
    assert [str(file) in warning for warning in warnings(config)] == [True]


def test_a_file_with_a_password_in_it_that_others_can_read_is_refused_whether_it_counts_or_not(
    entry: dict[str, Any], tmp_path: Path
) -> None:
    file = write_secret(tmp_path / "lxdsched.toml", 'redis_url = "redis://:hunter2@a"')
    assert redis(configure([entry], file=file)).account.password == "hunter2"
    file.chmod(0o644)
    (found,) = faults([entry], file=file)
    assert found.startswith(f"{file}: mode 0644, ")
    assert found.endswith("(redis_url has a password)")
    assert faults([entry], file=file, LXD_MULTI_SCHEDULER_REDIS_URL="redis://b") == [found]
    file.write_text('allow_exposed_keys = true\nredis_url = "redis://:hunter2@a"')
    assert [str(file) in warning for warning in warnings(configure([entry], file=file))] == [True]
    file.write_text('redis_url = "redis://joe@a"')
    assert faults([entry], file=file) == [f"{file}: redis_url: has a user and no password"]


def test_whom_to_take_for_a_redis_is_not_written_by_others(
    entry: dict[str, Any], paths: tuple[str, str], tmp_path: Path
) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_bytes(Path(paths[0]).read_bytes())
    authority.chmod(0o646)
    environment = {"LXD_MULTI_SCHEDULER_REDIS_URL": "rediss://a", "LXD_MULTI_SCHEDULER_REDIS_CA": str(authority)}
    (fault,) = faults([entry], **environment)
    assert fault.startswith(f"LXD_MULTI_SCHEDULER_REDIS_CA: {authority}: mode 0646, owner ")
