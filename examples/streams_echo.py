"""asyncio streams: any protocol, many connections in each worker. Try it with `nc 127.0.0.1 8080`."""

import sys

from prefork import Prefork
from prefork.servers.streams import StreamsServer


async def echo(reader, writer):
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


if __name__ == "__main__":
    Prefork(StreamsServer(echo)).listen_and_serve(sys.argv[1] if len(sys.argv) > 1 else ":8080")
