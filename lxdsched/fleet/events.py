"""One host's stream of lifecycle events: a websocket, bounded in everything that a host may do with it.

Events are hints: they have no order and no number, and none is told again. So what cannot be understood is passed on
as an event that says nothing, because it may have meant something; and what breaks a bound ends the stream, because
whoever listens must look for itself after that anyway.

The protocol is wsproto's. Twisted's own client waits for ever where a connection dies early, collects a message of
any length, and sees no frame, so nothing could be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from hyperlink import URL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from wsproto import ConnectionType, WSConnection
from wsproto import events as frames
from wsproto.connection import ConnectionState
from wsproto.utilities import ProtocolError
from zope.interface import implementer

from lxdsched.fleet.connections import Connections
from lxdsched.fleet.payloads import MOST_TEXT, Envelope, PayloadError, open_envelope

MOST_MESSAGE = 1024**2
"""Bytes that a message may have, whole or in pieces."""
MOST_FRAMES = 5000
"""Messages, pieces of messages, pings and pongs that may come within a second."""
GRACE = 0.2
"""Seconds beyond the time that a host has: when it was us who were away, what it said meanwhile is read first."""
FIRST_FRAME = 1.0
"""Seconds that a host has for its first frame before it is believed to have none."""
_MOST_ANSWER = 64 * 1024  # bytes that a host may say instead of opening the stream; h11 takes 16 KiB of headers at most


@dataclass(frozen=True, slots=True)
class Event:
    """What a host says has happened, as it says it.

    `action` is LXD's word (`instance-created`), `source` the path of what it happened to, with a query where that is
    not in the default project; `location` names a cluster's member and is `none` elsewhere. What the host leaves out
    is "", and all three are when it was not to be understood.
    """

    action: str
    source: str
    location: str


UNCLEAR = Event("", "", "")
"""Something may have happened."""


class StreamError(Exception):
    """A stream that cannot be, or cannot go on; the message says why, as a sentence."""


class Rejected(Exception):  # noqa: N818
    """The host answered, but not with its stream. `envelope` is what it said, its `error_code` never 0."""

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(envelope.error)
        self.envelope = envelope


class _Metadata(msgspec.Struct):
    action: str = ""
    source: str = ""


class _Message(msgspec.Struct):
    metadata: _Metadata
    location: str = ""


_message = msgspec.json.Decoder(_Message)


def read_event(message: bytes) -> Event:
    """Read a message of the stream; one that is not a lifecycle event is UNCLEAR."""
    try:
        read = _message.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return UNCLEAR
    if not read.metadata.action:
        return UNCLEAR
    return Event(read.metadata.action, read.metadata.source, read.location)


async def open_stream(
    connections: Connections,
    clock: IReactorTime,
    url: URL,
    *,
    ping: float,
    heard: Callable[[Event], None],
    lost: Callable[[str], None],
) -> EventStream:
    """Connect to the host whose API is at `url`, and ask for its stream. To cancel drops the connection at once.

    `heard` is told every event as it comes, `lost` once why the stream has ended, unless it was closed by us. A host
    from which no whole message, ping or pong came for twice `ping` seconds is lost. Raises Rejected or StreamError, or
    whatever kept the connection from being made, or ended it.
    """
    wanted = url.child("1.0", "events").add("type", "lifecycle").add("all-projects", "true")
    target = wanted.replace(scheme="", host="", port=None).to_uri().to_text()
    request = frames.Request(url.authority(), target)
    stream = EventStream(clock, request, ping=ping, heard=heard, lost=lost)
    await connections.attach(stream)
    await stream.opened
    return stream


class EventStream(Protocol):
    """The stream of one host. `opened` fires once the host tells what happens; to cancel that is to `close`.

    Between its agreement and its first frame, a ping as a rule, LXD does not hear its own events: what happens then is
    never told. A server that begins with no ping is believed after a while, and its first frame may mean something.
    """

    transport: Any  # a connection that can be aborted, and that tells a producer to pause

    def __init__(
        self,
        clock: IReactorTime,
        request: frames.Request,
        *,
        ping: float,
        heard: Callable[[Event], None],
        lost: Callable[[str], None],
    ) -> None:
        self.opened: Deferred[None] = Deferred(lambda _: self.close())
        self._clock = clock
        self._ping = ping
        self._heard = heard
        self._lost = lost
        self._wire = WSConnection(ConnectionType.CLIENT)
        self._request = self._wire.send(request)
        self._answered = 0  # bytes that came before the stream was open
        self._status = 0  # of an answer that does not open it, and whose body follows
        self._body = bytearray()
        self._text = bytearray()  # what has come of a message; of a binary one only its length matters
        self._length = 0
        self._second = 0.0
        self._frames = 0  # since `_second`
        self._agreed = False
        self._begins: IDelayedCall | None = None
        self._next_ping: IDelayedCall | None = None
        self._silence: IDelayedCall | None = None
        self._doubted = False
        self._over = False

    def close(self) -> None:
        """Drop the stream at once, and say nothing of it. The connection itself is gone a turn later."""
        if self._over:
            return
        self._over = True
        for call in (self._begins, self._next_ping, self._silence):
            if call is not None and call.active():
                call.cancel()
        self.transport.abortConnection()

    def connectionMade(self) -> None:  # noqa: N802
        """Ask for the stream."""
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Take in what the host says."""
        if self._over:
            return
        for frame in self._read(data):
            self._take(frame)
            if self._over:
                return
        if not self._agreed:
            self._answered += len(data)
            if self._answered > _MOST_ANSWER:
                self._end(self._rejection())

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Tell it to whoever has not heard of the end yet."""
        if self._status:
            self._end(self._rejection())
        elif self.opened.called:
            self._end(StreamError(f"its event stream ended: {_told(reason)}"))
        else:
            self._end(cast(Exception, reason.value))

    def _read(self, data: bytes) -> Iterator[frames.Event]:
        try:
            self._wire.receive_data(data)
            yield from self._wire.events()
        except (ProtocolError, ValueError) as error:  # ValueError: a header that is not ASCII
            self._end(StreamError(f"its /1.0/events is no websocket: {str(error)[:MOST_TEXT]}"))

    def _take(self, frame: frames.Event) -> None:
        if self._too_many():
            self._end(StreamError(f"its event stream is a flood: more than {MOST_FRAMES} messages within a second"))
            return
        if self._agreed and self._begins is not None:
            self._begin()
        match frame:
            case frames.AcceptConnection():
                self._agree()
            case frames.RejectConnection():
                self._status = frame.status_code
                if not frame.has_body:
                    self._end(self._rejection())
            case frames.RejectData():
                self._body += frame.data
                if frame.body_finished:
                    self._end(self._rejection())
            case frames.TextMessage():
                self._text += frame.data.encode()
                self._piece(len(self._text), finished=frame.message_finished)
            case frames.BytesMessage():
                self._piece(self._length + len(frame.data), finished=frame.message_finished)
            case frames.Ping():
                self._alive()
                self.transport.write(self._wire.send(frame.response()))
            case frames.Pong():
                self._alive()
            case frames.CloseConnection():
                self._end(self._farewell(frame))

    def _agree(self) -> None:
        # Only now: until TLS has begun, it holds back whatever is written.
        self.transport.registerProducer(_Backlog(self._end), True)
        self._next_ping = self._clock.callLater(self._ping, self._send_ping)
        self._silence = self._clock.callLater(2 * self._ping, self._silent)
        self._agreed = True
        self._begins = self._clock.callLater(FIRST_FRAME, self._believe)

    def _begin(self) -> None:
        """Take the first frame for what it says: that the host hears its own events from now on."""
        begins, self._begins = self._begins, None
        if begins is not None and begins.active():
            begins.cancel()
        if self.opened.called:
            self._heard(UNCLEAR)
        else:
            self.opened.callback(None)

    def _believe(self) -> None:
        self.opened.callback(None)

    def _piece(self, length: int, *, finished: bool) -> None:
        self._length = length
        if length > MOST_MESSAGE:
            self._end(StreamError(f"a message of its event stream is longer than {MOST_MESSAGE // 1024} KiB"))
        elif finished:
            message, self._text, self._length = bytes(self._text), bytearray(), 0
            self._alive()
            self._heard(read_event(message))

    def _rejection(self) -> Rejected:
        try:
            envelope = open_envelope(bytes(self._body))
        except PayloadError:
            envelope = Envelope()
        envelope.error_code = envelope.error_code or self._status
        envelope.error = envelope.error or "that is no event stream"
        return Rejected(envelope)

    def _farewell(self, frame: frames.CloseConnection) -> StreamError:
        why = (frame.reason or f"code {frame.code:d}")[:MOST_TEXT]
        if self._wire.state is ConnectionState.OPEN:  # it is wsproto that gives up: the host has closed nothing
            return StreamError(f"its event stream breaks the websocket protocol: {why}")
        return StreamError(f"it closed its event stream: {why}")

    def _too_many(self) -> bool:
        now = self._clock.seconds()
        if not 0 <= now - self._second < 1:  # a clock may be set back
            self._second = now
            self._frames = 0
        self._frames += 1
        return self._frames > MOST_FRAMES

    def _alive(self) -> None:
        self._doubted = False
        if self._silence is not None:
            self._silence.reset(2 * self._ping)

    def _send_ping(self) -> None:
        self._next_ping = self._clock.callLater(self._ping, self._send_ping)
        self.transport.write(self._wire.send(frames.Ping()))

    def _silent(self) -> None:
        if not self._doubted:
            self._doubted = True
            self._silence = self._clock.callLater(GRACE, self._silent)
            return
        self._end(StreamError(f"its event stream is silent: nothing came for {2 * self._ping:g} s"))

    def _end(self, error: Exception) -> None:
        if self._over:
            return
        self.close()
        if self.opened.called:
            self._lost(str(error))
        else:
            self.opened.errback(error)


@implementer(IPushProducer)
class _Backlog:
    """Ends the stream of a host that does not read what is written to it: pongs, when it pings without end."""

    def __init__(self, end: Callable[[Exception], None]) -> None:
        self._end = end

    def pauseProducing(self) -> None:  # noqa: N802
        self._end(StreamError("it does not read what its event stream is sent"))

    def resumeProducing(self) -> None:  # noqa: N802
        """Nothing has stopped that could go on."""

    def stopProducing(self) -> None:  # noqa: N802
        """The connection is gone, and says so itself."""


def _told(reason: Failure) -> str:
    if reason.check(ConnectionDone):
        return "it has closed the connection"
    if reason.check(ConnectionLost, ConnectionAborted):
        return "the connection broke off"
    return reason.getErrorMessage()
