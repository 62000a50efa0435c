"""Between a function and its servers: counts requests and bytes, and can be as slow as Lambda's network."""

import asyncio
import contextlib
import re
import threading
import time

REQUEST = re.compile(rb"^(GET|HEAD|PUT|POST|PATCH|DELETE) (/\S*) HTTP/1\.1\r\n", re.MULTILINE)
CHUNK_BYTES = 128 << 10


class Rate:
    """So many bytes a second, over all that share it; None for no limit."""

    def __init__(self, bytes_per_second):
        self.bytes_per_second, self.free_at = bytes_per_second, 0.0

    async def take(self, count):
        if self.bytes_per_second:
            self.free_at = max(self.free_at, time.monotonic()) + count / self.bytes_per_second
            await asyncio.sleep(self.free_at - time.monotonic())


class Network:
    """What all connections of one function share. The default is no limit at all."""

    def __init__(self, first_byte_s=0.0, connection_rate=None, function_rate=None):
        self.first_byte_s, self.connection_rate = first_byte_s, connection_rate
        self.down, self.up = Rate(function_rate), Rate(function_rate)


class Relay:
    """A port of its own in front of one server."""

    def __init__(self, network, host, port):
        self.network, self.host, self.port = network, host, port
        self.requests, self.bytes_down, self.bytes_up = {}, 0, 0
        self.address = None

    def reset(self):
        """Forgets what was counted."""
        self.requests, self.bytes_down, self.bytes_up = {}, 0, 0

    async def _connection(self, client, to_client):
        server, to_server = await asyncio.open_connection(self.host, self.port)
        asked = [0.0]
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._up(client, to_server, asked))
                both.create_task(self._down(server, to_client, asked))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            to_client.close()
            to_server.close()

    async def _up(self, client, to_server, asked):
        own = Rate(self.network.connection_rate)
        while chunk := await client.read(CHUNK_BYTES):
            for method, _path in REQUEST.findall(chunk):
                method = method.decode()
                self.requests[method] = self.requests.get(method, 0) + 1
                asked[0] = time.monotonic()
            self.bytes_up += len(chunk)
            await asyncio.gather(own.take(len(chunk)), self.network.up.take(len(chunk)))
            to_server.write(chunk)
            await to_server.drain()
        to_server.write_eof()

    async def _down(self, server, to_client, asked):
        own = Rate(self.network.connection_rate)
        while chunk := await server.read(CHUNK_BYTES):
            if asked[0]:
                await asyncio.sleep(asked[0] + self.network.first_byte_s - time.monotonic())
                asked[0] = 0.0
            self.bytes_down += len(chunk)
            await asyncio.gather(own.take(len(chunk)), self.network.down.take(len(chunk)))
            to_client.write(chunk)
            await to_client.drain()
        to_client.write_eof()


@contextlib.contextmanager
def running(network, *addresses):
    """Runs a relay in front of each address while the `with` block does."""
    relays = [Relay(network, *address.rsplit(":", 1)) for address in addresses]
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def listen():
        servers = [await asyncio.start_server(relay._connection, "127.0.0.1", 0) for relay in relays]
        for relay, server in zip(relays, servers):
            relay.address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        ready.set()

    def serve():
        asyncio.set_event_loop(loop)
        loop.run_until_complete(listen())
        loop.run_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield relays
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
