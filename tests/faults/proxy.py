"""A TCP proxy in front of every broker that knows Kafka's frames, and breaks what a test tells it to.

It reads whole frames: a size of four bytes, then for a request the API key, its version and the correlation
id, for a response the correlation id. So it can lose exactly the answer to a produce request that the broker
has handled, cut a frame in the middle, or stop at the moment a certain request passes by. All choices come
from a seed, and everything that was done is in :attr:`FaultNetwork.journal` and on standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

# What a client that has gone left behind is still handed to the broker, and answered, for this long.
_ORPHAN_S = 5.0
_LARGEST_FRAME = 200_000_000


class Api(enum.IntEnum):
    """API keys of the Kafka protocol that faults are made for."""

    PRODUCE = 0
    METADATA = 3
    FIND_COORDINATOR = 10
    API_VERSIONS = 18
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


class Fault(enum.Enum):
    """What can happen to one request."""

    RESET_BEFORE = "connection reset before the broker got the request"
    RESET_MID_REQUEST = "connection reset in the middle of the request"
    RESET_MID_RESPONSE = "connection reset in the middle of the response"
    DROP_RESPONSE = "response dropped after the broker handled the request, connection closed"
    HOLD_REQUEST = "request held before the broker"
    HOLD_RESPONSE = "response held after the broker handled the request"


_ON_REQUEST = (Fault.RESET_BEFORE, Fault.RESET_MID_REQUEST, Fault.HOLD_REQUEST)


class Injection(NamedTuple):
    """One line of the journal: seconds since the network was made, which broker (0: all), and what."""

    at: float
    node: int
    what: str


class Rule:
    """A fault for the next requests of a kind; made by :meth:`FaultNetwork.inject`.

    Attributes:
        hits: how many requests it has met.
    """

    def __init__(
        self,
        fault: Fault,
        api: Api | None,
        node: int | None,
        times: int,
        skip: int,
        probability: float,
        matches: Callable[[bytes], bool] | None,
    ) -> None:
        self.fault = fault
        self.api = api
        self.node = node
        self.times = times
        self.skip = skip
        self.probability = probability
        self.matches = matches
        self.hits = 0
        self._met = threading.Event()
        self._spent = threading.Event()
        self._released = asyncio.Event()

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until it has met a request.

        Raises:
            TimeoutError: it has met none within ``timeout`` seconds.
        """
        if not self._met.wait(timeout):
            raise TimeoutError(f"no request met «{self.fault.value}» ({self.api!r}) within {timeout:g} s")

    def wait_spent(self, timeout: float = 60.0) -> None:
        """Wait until it has met as many requests as it was made for.

        Raises:
            TimeoutError: it has not within ``timeout`` seconds.
        """
        if not self._spent.wait(timeout):
            raise TimeoutError(
                f"{self.hits} of {self.times} requests met «{self.fault.value}» in {timeout:g} s"
            )

    # -- in the proxy's thread -------------------------------------------------------------------------------

    def meets(self, node: int, api: int, frame: bytes, random_: random.Random) -> bool:
        if self.hits >= self.times or (self.api is not None and self.api != api):
            return False
        if (self.node is not None and self.node != node) or (self.matches and not self.matches(frame)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.probability < 1 and random_.random() >= self.probability:
            return False
        self.hits += 1
        self._met.set()
        if self.hits >= self.times:
            self._spent.set()
        return True

    async def released(self) -> None:
        await self._released.wait()

    def release_in_loop(self) -> None:
        self._released.set()


class _Link:
    """The way to one broker: its listening socket, its connections and what is wrong with it now."""

    def __init__(self, node: int, listener: socket.socket, upstream: int) -> None:
        self.node = node
        self.port = int(listener.getsockname()[1])
        self.listener: socket.socket | None = listener
        self.upstream = upstream
        self.server: asyncio.Server | None = None
        self.opening: asyncio.Task[None] | None = None
        self.clear = asyncio.Event()
        self.clear.set()
        self.delay = 0.0
        self.delayed: Api | None = None
        self.bytes_per_second = 0.0
        self.connections: set[_Connection] = set()


class _Connection:
    """One client's connection to one broker: two streams of frames."""

    def __init__(
        self, network: FaultNetwork, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._network = network
        self._link = link
        self._client = (reader, writer)
        self._broker: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._unanswered: dict[int, tuple[int, Rule | None]] = {}
        self._all_answered = asyncio.Event()

    async def run(self) -> None:
        try:
            self._broker = await asyncio.open_connection("127.0.0.1", self._link.upstream)
        except OSError:
            self.reset()
            return
        # The broker's end ends everything. When the client's does, what it sent is still delivered: a packet
        # that is under way does not know that its sender is gone.
        responses = asyncio.ensure_future(self._responses())
        requests = asyncio.ensure_future(self._requests())
        try:
            await asyncio.wait((responses, requests), return_when=asyncio.FIRST_COMPLETED)
            if not responses.done() and not requests.cancelled() and requests.exception() is None:
                if self._unanswered:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._all_answered.wait(), _ORPHAN_S)
        finally:
            for task in (responses, requests):
                task.cancel()
            await asyncio.gather(responses, requests, return_exceptions=True)
            self.reset()

    def reset(self, *, politely: bool = False) -> None:
        """Close both ends, by RST (or FIN)."""
        for _, writer in filter(None, (self._client, self._broker)):
            if politely:
                writer.close()
                continue
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                with contextlib.suppress(OSError):
                    # Linger of 0 s: close() sends RST.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _requests(self) -> None:
        assert self._broker is not None
        reader, writer = self._client[0], self._broker[1]
        while True:
            frame = await self._frame(reader)
            if frame is None:
                return
            api, _, correlation = struct.unpack_from(">hhi", frame, 4)
            rule = self._network._rule_for(self._link.node, api, frame)
            if rule is not None and rule.fault in _ON_REQUEST:
                if rule.fault is Fault.HOLD_REQUEST:
                    await rule.released()
                    self._network._note(self._link.node, f"{_api_name(api)} released")
                elif rule.fault is Fault.RESET_BEFORE:
                    self.reset()
                    return
                else:
                    await self._cut(writer, frame, politely=False)
                    return
            self._unanswered[correlation] = (api, rule)
            self._all_answered.clear()
            await self._pass_on(writer, frame)

    async def _responses(self) -> None:
        assert self._broker is not None
        reader, writer = self._broker[0], self._client[1]
        gone = False
        while True:
            frame = await self._frame(reader)
            if frame is None:
                return
            (correlation,) = struct.unpack_from(">i", frame, 4)
            api, rule = self._unanswered.pop(correlation, (-1, None))
            if rule is not None:
                if rule.fault is Fault.DROP_RESPONSE:
                    self.reset(politely=self._network._random.random() < 0.5)
                    return
                if rule.fault is Fault.RESET_MID_RESPONSE:
                    await self._cut(writer, frame, politely=self._network._random.random() < 0.5)
                    return
                if rule.fault is Fault.HOLD_RESPONSE:
                    await rule.released()
                    self._network._note(self._link.node, f"response to {_api_name(api)} released")
            if self._link.delay and self._link.delayed in (None, api):
                await asyncio.sleep(self._link.delay)
            if not gone:
                try:
                    await self._pass_on(writer, frame)
                except OSError:
                    gone = True  # the client is; the broker's answers go nowhere
            if not self._unanswered:
                self._all_answered.set()

    async def _frame(self, reader: asyncio.StreamReader) -> bytes | None:
        await self._link.clear.wait()
        try:
            head = await reader.readexactly(4)
            (size,) = struct.unpack(">i", head)
            if not 4 <= size <= _LARGEST_FRAME:
                raise ValueError(f"a frame of {size} bytes on the way to or from broker {self._link.node}")
            body = await reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            return None
        await self._link.clear.wait()
        return head + body

    async def _pass_on(self, writer: asyncio.StreamWriter, frame: bytes) -> None:
        if self._link.bytes_per_second:
            await asyncio.sleep(len(frame) / self._link.bytes_per_second)
        writer.write(frame)
        await writer.drain()

    async def _cut(self, writer: asyncio.StreamWriter, frame: bytes, *, politely: bool) -> None:
        writer.write(frame[: self._network._random.randrange(1, len(frame))])
        with contextlib.suppress(OSError):
            await writer.drain()
        self.reset(politely=politely)


class FaultNetwork:
    """The proxies of all brokers of a cluster, run by a thread of its own. Its methods are for any thread.

    Args:
        seed: of all random choices.
        quiet: write the journal only, print nothing.
    """

    def __init__(self, seed: int, *, quiet: bool = False) -> None:
        self.seed = seed
        self.journal: list[Injection] = []
        self._quiet = quiet
        self._random = random.Random(seed)
        self._began = time.monotonic()
        self._links: dict[int, _Link] = {}
        self._rules: list[Rule] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()

    def add(self, node: int, listener: socket.socket, upstream: int) -> None:
        """Proxy ``listener``, a bound socket, to ``upstream``, a port of the loopback interface.

        Nobody is let in before :meth:`open`.
        """

        async def make() -> None:
            self._links[node] = _Link(node, listener, upstream)

        self._call(make())

    def port(self, node: int) -> int:
        """The port that stands for a broker."""
        return self._links[node].port

    def reseed(self, seed: int) -> None:
        """Start the random choices, the journal and its clock anew."""

        async def again() -> None:
            self.seed = seed
            self._random.seed(seed)
            self.journal.clear()
            self._began = time.monotonic()

        self._call(again())

    # -- faults of single requests ---------------------------------------------------------------------------

    def inject(
        self,
        fault: Fault,
        api: Api | None = Api.PRODUCE,
        *,
        node: int | None = None,
        times: int = 1,
        skip: int = 0,
        probability: float = 1.0,
        matches: Callable[[bytes], bool] | None = None,
    ) -> Rule:
        """Make ``fault`` happen to ``times`` requests, after ``skip`` others.

        Args:
            api: requests of which kind; None: all.
            node: to which broker; None: any.
            probability: with which a request that fits is met.
            matches: which requests of that kind, by their whole frame.
        """

        async def make() -> Rule:
            rule = Rule(fault, api, node, times, skip, probability, matches)
            self._rules.append(rule)
            return rule

        return self._call(make())

    def release(self, rule: Rule) -> None:
        """Let go what HOLD_REQUEST or HOLD_RESPONSE held."""
        self._loop.call_soon_threadsafe(rule.release_in_loop)

    def cancel(self, rule: Rule) -> None:
        """The rule meets no further requests; what it holds is let go."""

        async def drop() -> None:
            if rule in self._rules:
                self._rules.remove(rule)
            rule.release_in_loop()

        self._call(drop())

    # -- faults of the whole way to a broker -----------------------------------------------------------------

    def black_hole(self, node: int | None = None) -> None:
        """Connections stay open, new ones are accepted, and nothing gets through until :meth:`heal`.

        What was sent meanwhile arrives then, late, also from clients that have given up.
        """
        self._each(node, "black hole", lambda link: link.clear.clear())

    def slow(
        self,
        node: int | None = None,
        *,
        delay: float = 0.0,
        api: Api | None = None,
        bytes_per_second: float = 0.0,
    ) -> None:
        """Hold each response back for ``delay`` s, one after the other; limit the bytes in each direction.

        Args:
            node: of which broker; None: of all.
            delay: in seconds; 0: none.
            api: only responses to these requests; None: to all.
            bytes_per_second: 0: as many as there are.
        """

        def set_pace(link: _Link) -> None:
            link.delay, link.delayed, link.bytes_per_second = delay, api, bytes_per_second

        self._each(node, f"slow: {delay:g} s a response, {bytes_per_second or 'any':} bytes/s", set_pace)

    def reset(self, node: int | None = None) -> None:
        """Reset all connections there are."""

        def reset(link: _Link) -> None:
            for connection in list(link.connections):
                connection.reset()

        self._each(node, "all connections reset", reset)

    def shut(self, node: int | None = None) -> None:
        """Refuse connections, as a host whose broker is down; those there are stay as they are."""
        self._each(node, "connections refused", self._shut_link, silent=True)

    def open(self, node: int | None = None) -> None:
        """Accept connections again, from the moment on at which the broker does."""
        self._each(node, "connections accepted", self._open_link, silent=True)

    def heal(self, node: int | None = None) -> None:
        """No rules (for ``node`` None), no black hole, no slowness."""

        def clear(link: _Link) -> None:
            link.delay = link.bytes_per_second = 0.0
            link.clear.set()

        if node is None:
            for rule in list(self._rules):
                self.cancel(rule)
        self._each(node, "healed", clear)

    def connections(self, node: int) -> int:
        """How many connections of clients there are to a broker."""

        async def count() -> int:
            return len(self._links[node].connections)

        return self._call(count())

    def note(self, what: str, node: int = 0) -> None:
        """Write something into the journal that was done by others."""
        self._loop.call_soon_threadsafe(self._note, node, what)

    def close(self) -> None:
        """Reset everything and end the thread."""
        if self._loop.is_closed():
            return

        async def end() -> None:
            for link in self._links.values():
                self._shut_link(link)
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- in the proxy's thread -------------------------------------------------------------------------------

    def _rule_for(self, node: int, api: int, frame: bytes) -> Rule | None:
        for rule in self._rules:
            if rule.meets(node, api, frame, self._random):
                self._note(node, f"{_api_name(api)}: {rule.fault.value}")
                return rule
        return None

    def _note(self, node: int, what: str) -> None:
        injection = Injection(time.monotonic() - self._began, node, what)
        self.journal.append(injection)
        if not self._quiet:
            who = f"broker {node}" if node else "all"
            print(f"fault {injection.at:8.3f} s  {who}: {what}", flush=True)

    def _each(
        self, node: int | None, what: str, change: Callable[[_Link], None], *, silent: bool = False
    ) -> None:
        async def change_them() -> None:
            for link in self._links.values() if node is None else [self._links[node]]:
                change(link)
            if not silent:
                self._note(node or 0, what)

        self._call(change_them())

    def _shut_link(self, link: _Link) -> None:
        if link.opening is not None:
            link.opening.cancel()
            link.opening = None
        if link.server is not None:
            link.server.close()
            link.server = None

    def _open_link(self, link: _Link) -> None:
        if link.server is None and link.opening is None:
            link.opening = asyncio.ensure_future(self._open_when_the_broker_is(link))

    async def _open_when_the_broker_is(self, link: _Link) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", link.upstream)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            break

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = _Connection(self, link, reader, writer)
            link.connections.add(connection)
            try:
                await connection.run()
            finally:
                link.connections.discard(connection)

        listener = link.listener or _bound(link.port)
        link.listener = None
        link.server = await asyncio.start_server(accept, sock=listener)
        link.opening = None

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def _api_name(key: int) -> str:
    try:
        return Api(key).name
    except ValueError:
        return f"API {key}"
