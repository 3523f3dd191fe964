"""A relay between a daemon and its Redis that can be slow, or pass nothing on, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class SlowRelay:
    """Passes connections on to a port of this machine, each chunk `delay` seconds late, in both directions.

    While it is held, nothing comes through; what was sent meanwhile does so afterwards, as with a network that was down
    for a moment. What a side has sent before it closed is still passed on.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._serving: set[asyncio.Task[None]] = set()

    def hold(self) -> None:
        """Pass nothing on."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """Pass everything on again."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until `end` is called."""
        self._loop.run_until_complete(self._serve(ready))
        self._loop.close()

    def end(self) -> None:
        """Serve no more."""
        self._loop.call_soon_threadsafe(self._ended.set)

    async def _serve(self, ready: Callable[[], None]) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready()
        await self._ended.wait()
        server.close()
        for each in self._serving:
            each.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = self._loop.create_task(self._relay(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_writer: asyncio.StreamWriter | None = None
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        except OSError:
            pass
        finally:
            for each in (writer, far_writer):
                if each is not None:
                    each.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            data = b"-"
            while data:
                try:
                    data = await reader.read(65536)
                except OSError:
                    data = b""
                chunks.put_nowait((self._loop.time(), data))

        reading = self._loop.create_task(read())
        try:
            while True:
                came, data = await chunks.get()
                await asyncio.sleep(max(came + self.delay - self._loop.time(), 0))
                await self._flowing.wait()
                if not data:
                    with suppress(OSError):
                        writer.write_eof()
                    return
                writer.write(data)
        finally:
            reading.cancel()


@contextmanager
def slow_relay(target: int) -> Iterator[SlowRelay]:
    """Run a relay to a port."""
    relay, ready = SlowRelay(target), threading.Event()
    thread = threading.Thread(target=relay.run, args=(ready.set,), daemon=True)
    thread.start()
    assert ready.wait(10), "the relay has not come up"
    try:
        yield relay
    finally:
        relay.end()
        thread.join(10)
