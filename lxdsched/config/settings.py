"""The table of all settings: names, sources, defaults, and what they are for.

The command line's options, the environment's variables and the documentation all come from this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lxdsched.config.endpoints import endpoint
from lxdsched.config.values import (
    Reader,
    anything,
    boolean,
    choice,
    integer,
    interface,
    key_prefix,
    millicores,
    seconds,
    size,
    size_from,
    text,
    texts,
)
from lxdsched.listener.tls import Ask

PREFIX: Final = "LXD_MULTI_SCHEDULER_"
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR")


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. `name` is its key in the file, `help` is for people, `default` is written as in TOML."""

    name: str
    default: object
    read: Reader
    help: str
    environment: str = ""

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return self.environment or PREFIX + self.name.upper()

    @property
    def shown_default(self) -> str:
        """The default as people write it."""
        if isinstance(self.default, list):
            return ",".join(self.default) or "none"
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if isinstance(self.default, float):
            return f"{self.default:g}"
        return "none" if self.default is None else str(self.default)

    @property
    def option(self) -> str:
        """The option of `twistd lxdsched` that sets it, without dashes."""
        return self.name.replace("_", "-")


SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "hosts",
        None,
        anything,
        "the LXD hosts: a JSON array of objects or URLs, the same as the shoes-lxd-multi server's",
        "LXD_MULTI_HOSTS",
    ),
    Setting("client_cert", None, text, "client certificate (PEM file) for hosts that name none"),
    Setting("client_key", None, text, "key (PEM file) of client_cert"),
    Setting("allow_exposed_keys", False, boolean, "whether keys and passwords may be in files that others can read"),
    Setting("port", 8080, integer(0, 65535), "TCP port to listen on; 0 takes any free one"),
    Setting("interface", "127.0.0.1", interface, "IP address to listen on; 0.0.0.0 or :: for all of the machine's"),
    Setting("endpoint", None, endpoint, "Twisted endpoint to listen on instead: tcp:..., unix:PATH, systemd:..."),
    Setting("tls_cert", None, text, "certificate (PEM file) for clients, with its issuers behind it; turns TLS on"),
    Setting("tls_key", None, text, "key (PEM file) of tls_cert"),
    Setting("tls_client_ca", None, text, "CAs (PEM file) of the clients that clients_file knows by names"),
    Setting("tls_client_crl", None, text, "revocation lists (PEM file) of tls_client_ca"),
    Setting(
        "tls_client_auth",
        None,
        choice(*Ask),
        "whether clients are asked for a certificate; without it, where clients_file knows any",
    ),
    Setting("metrics_access", "read", choice("read", "open"), "who may see /metrics: clients with that right, or all"),
    Setting("metrics_endpoint", None, endpoint, "Twisted endpoint for health and metrics alone, open to all"),
    Setting("clients_file", None, text, "TOML file with the clients, their rights and keys; turns access control on"),
    Setting(
        "over_commit_percent",
        100,
        integer(1, 10_000),
        "how much of a host's CPU may be given away, in percent; a host may say its own",
        "LXD_MULTI_OVER_COMMIT_PERCENT",
    ),
    Setting("reserve_memory", 0, size, "memory of every host that is never given away; a host may say its own"),
    Setting("unlimited_cpu", 0, millicores, "cores that a container without a CPU limit counts as"),
    Setting("unlimited_memory", 0, size, "memory that a container without a memory limit counts as"),
    Setting("exempt_statuses", ["Frozen"], texts, "statuses of instances that do not count"),
    Setting("strategy", "least-allocated", text, "the order of preference among hosts that fit"),
    Setting("allow_strategies", [], texts, "strategies that a request may ask for instead"),
    Setting(
        "reservation_ttl",
        120.0,
        seconds(1),
        "seconds for which an answer's capacity is kept for an instance that does not appear",
    ),
    Setting("redis_url", None, anything, "the Redis that several schedulers share; as an option without a password"),
    Setting("redis_password_file", None, text, "file with the password of the Redis, so that no URL needs it"),
    Setting("redis_ca", None, text, "CAs (PEM file) of a Redis at rediss://; without it the system's"),
    Setting("redis_cert", None, text, "client certificate (PEM file) for a Redis at rediss://"),
    Setting("redis_key", None, text, "key (PEM file) of redis_cert"),
    Setting("redis_sentinel_username", None, text, "user of the Sentinels, where it is not the default one"),
    Setting("redis_sentinel_password_file", None, text, "file with the password of the Sentinels"),
    Setting("redis_timeout", 0.25, seconds(0.01), "seconds that a request waits for Redis, at most"),
    Setting("redis_prefix", "lxdsched", key_prefix, "what the keys in Redis begin with; one for each fleet"),
    Setting(
        "on_ledger_failure",
        "answer",
        choice("answer", "refuse"),
        "whether requests are answered, from what this scheduler knows alone, while Redis is away",
    ),
    Setting(
        "state_directory", None, text, "where hosts trusted on first use are remembered; without it a restart forgets"
    ),
    Setting("connect_timeout", 2.0, seconds(0.05), "seconds for the TCP connection to a host"),
    Setting("host_timeout", 5.0, seconds(0.1), "seconds for a host's whole answer, from connecting to the last byte"),
    Setting("probe_interval", 1.0, seconds(0.05), "seconds until a failed host is asked again; doubled each time"),
    Setting("probe_interval_max", 30.0, seconds(0.05), "seconds between two probes of a failed host, at most"),
    Setting("poll_interval", 30.0, seconds(0.1), "seconds between two looks at a host that no request asks about"),
    Setting("capacity_interval", 300.0, seconds(1), "seconds between two looks at a host's size"),
    Setting("ping_interval", 5.0, seconds(0.1), "seconds between two signs of life of a host's event stream"),
    Setting("max_stale", 30.0, seconds(0), "seconds for which a host that cannot list is chosen from its last view"),
    Setting("max_answer_size", "32MiB", size_from(64 * 1024), "size at which a host's answer is cut off"),
    Setting("max_body_size", "64KiB", size_from(1024), "size at which a request's body is refused"),
    Setting("max_header_size", "16KiB", size_from(1024), "size at which a request's head is refused"),
    Setting("request_timeout", 10.0, seconds(0.1), "seconds that a client has to send a request, or to take an answer"),
    Setting("idle_timeout", 75.0, seconds(0.1), "seconds that a connection may wait for its next request"),
    Setting("max_connections", 4096, integer(1, 1_000_000), "connections of clients at the same time"),
    Setting("max_connections_per_peer", 1024, integer(1, 1_000_000), "connections of one address at the same time"),
    Setting("max_requests", 2048, integer(1, 1_000_000), "requests that are being answered at the same time"),
    Setting(
        "max_rate_per_peer",
        500,
        integer(0, 1_000_000),
        "requests and connections a second of one address before it is made to wait; 0 is no limit",
    ),
    Setting("stop_timeout", 10.0, seconds(0), "seconds that requests in flight have to finish when the daemon stops"),
    Setting("log_level", "INFO", choice(*LOG_LEVELS), "least level that is logged", "LXD_MULTI_LOG_LEVEL"),
    Setting(
        "log_format",
        "auto",
        choice("auto", "json", "text", "journal"),
        "auto is systemd's journal where it reads us, text on a terminal, JSON elsewhere",
    ),
)
