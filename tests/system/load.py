"""Asks a daemon on this machine from many clients at once, until it is ended by SIGTERM, and says what came of it.

It runs in the container, by Debian's Python alone. Each request is a connection of its own. It prints one JSON object:
how many were answered with which status, refused (nobody listened), reset (nobody listened any more, which happens to
those that wait to be taken), or lost in another way.
"""

from __future__ import annotations

import http.client
import json
import signal
import sys
import threading
import time
from collections import Counter

CLIENTS = 8
PAUSE = 0.1
"""Seconds between two rounds of a client. Together they stay below what one address may ask (`max_rate_per_peer`)."""
PATIENCE = 20.0
BODY = b'{"cpu": 1, "memory": 1048576}'


def ask(port: int, headers: dict[str, str], method: str, path: str, body: bytes = b"") -> tuple[str, bytes]:
    """Ask once; return what came of it, and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.connect()
    except OSError:
        return "refused", b""
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return str(answer.status), answer.read()
    except ConnectionResetError:
        return "reset", b""
    except (OSError, http.client.HTTPException) as error:
        return f"lost ({type(error).__name__})", b""
    finally:
        connection.close()


def main() -> None:
    """Ask until SIGTERM."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    port = int(sys.argv[1])
    headers = {"Authorization": f"Bearer {sys.argv[2]}"} if len(sys.argv) > 2 else {}
    came: Counter[str] = Counter()
    lock = threading.Lock()

    def client() -> None:
        while not over.is_set():
            result, answer = ask(port, headers, "POST", "/schedule", BODY)
            with lock:
                came[result] += 1
            if result == "200":
                # What is claimed is given back, so that there always is room.
                result, _ = ask(port, headers, "DELETE", f"/reservations/{json.loads(answer)['reservation']['id']}")
                with lock:
                    came[result] += 1
            time.sleep(PAUSE)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(came))


if __name__ == "__main__":
    main()
