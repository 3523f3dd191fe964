"""Simulated hosts in a process of their own: `python -m tests.e2e.simulated HOSTS CORES DIRECTORY`.

Tells, in one line of JSON, what LXD_MULTI_HOSTS is to be, and serves until it is ended.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from lxdsched.sandbox.certs import make_certificate
from lxdsched.sandbox.records import Hardware
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState
from tests.support import the_reactor


async def serve(hosts: int, cores: int, directory: Path) -> None:
    now = datetime.now(UTC)
    pair, server_pair = make_certificate("scheduler", now=now, client=True), make_certificate("node", now=now)
    certificate, key = pair.write(directory, "client")
    told = []
    for number in range(hosts):
        state = ServerState(f"node-{number}", Hardware(threads=cores))
        state.trust(pair.certificate)
        server = SandboxServer(state, the_reactor(), keypair=server_pair)  # type: ignore[arg-type]
        await server.start()
        told.append(
            {
                "host": server.url,
                "client_cert": str(certificate),
                "client_key": str(key),
                "fingerprint": server_pair.fingerprint,
            }
        )
    print(json.dumps(told), flush=True)


def main() -> None:
    reactor = the_reactor()
    hosts, cores, directory = sys.argv[1:]

    def fail(failure: Any) -> None:
        print(failure.getTraceback(), flush=True)
        reactor.stop()

    serving = Deferred.fromCoroutine(serve(int(hosts), int(cores), Path(directory)))
    serving.addErrback(fail)
    reactor.run()


if __name__ == "__main__":
    main()
