"""The scenarios of the client tests with the Python SDK 1.x (tests/clients/README.md)."""
import asyncio
import contextlib
import ssl

import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

import scenario
import sdk_1


@contextlib.asynccontextmanager
async def connect(auth):
    verify = ssl.create_default_context(cafile=scenario.CA)
    async with (
        httpx.AsyncClient(auth=auth, verify=verify, timeout=30) as http,
        streamable_http_client(scenario.URL, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        yield sdk_1.Session(session, (await session.initialize()).protocolVersion)


asyncio.run(scenario.main(connect))
