"""A simulated LXD fleet over real mutual TLS, in one process: for demonstrations, tests and benchmarks.

It speaks the part of LXD's REST API that a scheduler and its tests use, with the bodies and status codes of LXD 5.0.2
(and, where asked, Incus' way with restricted certificates). It is trusted because one suite of contract tests, driven
through the REST API alone, passes against it and against a real LXD.

How it works, from the inside out:

- `records` and `validate` are values and grammar: instances, profiles, projects, hardware; what LXD accepts.
- `database` is what LXD stores, `state` one server with its database, or with the one its cluster shares. Every change
  that LXD tells passes through `Database.changed` and becomes an event, see `events`.
- `instances`, `power`, `catalog`, `trust`, `cluster` and `general` are the endpoints: functions from a `Question` to an
  `Answer`, or to a `Subscription` to events.
- `api` routes HTTP to them, with LXD's access rules. The trust store is asked at every request. `streams` are the
  websockets over which events go.
- `transport` and `exchange` are TCP, TLS and HTTP, where the `faults` strike: refuse, hang, drip, flood and so on.
- `server` is one listening server, `fleet` many, `command` the program.
"""

from lxdsched.sandbox.certs import KeyPair, make_authority, make_certificate
from lxdsched.sandbox.database import Database
from lxdsched.sandbox.fleet import SandboxFleet
from lxdsched.sandbox.records import Hardware, Status
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState

__all__ = [
    "Database",
    "Hardware",
    "KeyPair",
    "SandboxFleet",
    "SandboxServer",
    "ServerState",
    "Status",
    "make_authority",
    "make_certificate",
]
