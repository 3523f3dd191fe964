"""One simulated host in a process of its own: `python -m tests.e2e.one_host PORT DIRECTORY NAME`.

It shows the certificate `NAME.crt` of the directory, and trusts `client.crt`. Says `ready`, and serves until it is
ended.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate
from twisted.internet.defer import Deferred

from lxdsched.sandbox.certs import KeyPair
from lxdsched.sandbox.server import SandboxServer
from lxdsched.sandbox.state import ServerState
from tests.support import the_reactor


async def serve(port: int, pair: KeyPair, client: bytes) -> None:
    state = ServerState("node-1")
    state.trust(load_pem_x509_certificate(client))
    await SandboxServer(state, the_reactor(), keypair=pair, port=port).start()  # type: ignore[arg-type]
    print("ready", flush=True)


def main() -> None:
    reactor = the_reactor()
    port, directory, name = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    key = load_pem_private_key((directory / f"{name}.key").read_bytes(), None)
    pair = KeyPair(
        load_pem_x509_certificate((directory / f"{name}.crt").read_bytes()), cast(EllipticCurvePrivateKey, key)
    )

    def fail(failure: Any) -> None:
        print(failure.getTraceback(), flush=True)
        reactor.stop()

    Deferred.fromCoroutine(serve(port, pair, (directory / "client.crt").read_bytes())).addErrback(fail)
    reactor.run()


if __name__ == "__main__":
    main()
