"""The scenario of the client tests with the Python SDK 1.x (tests/clients/README.md)."""
import asyncio
import ssl

import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

import scenario
import sdk_1


async def main():
    verify = ssl.create_default_context(cafile=scenario.CA)
    http = httpx.AsyncClient(headers=scenario.HEADERS, verify=verify, timeout=httpx.Timeout(30, read=900))
    async with (
        http,
        streamable_http_client(scenario.URL, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await scenario.run(sdk_1.Session(session, (await session.initialize()).protocolVersion))


asyncio.run(main())
