"""The scenario of the client tests with the Python SDK 2.x, in the era that `MCP_ERA` names (tests/clients/README.md)."""
import asyncio
import ssl

import httpx2
import mcp
from mcp.client.streamable_http import streamable_http_client

import scenario
import sdk_2


class Client(sdk_2.Client):
    def __init__(self, client):
        super().__init__(client.call_tool, client.protocol_version)
        self.client = client

    async def tools(self):
        return [tool.name for tool in (await self.client.list_tools()).tools]

    async def progress(self, callback):
        await self.invoke("progress", {"steps": 3}, progress_callback=callback)

    async def long(self, seconds):
        return sdk_2.facts(await self.invoke("slow", {"seconds": seconds}, read_timeout_seconds=seconds + 60))


async def main():
    verify, timeout = ssl.create_default_context(cafile=scenario.CA), httpx2.Timeout(30, read=900)
    async with httpx2.AsyncClient(headers=scenario.HEADERS, verify=verify, timeout=timeout) as http:
        transport = streamable_http_client(scenario.URL, http_client=http)
        async with mcp.Client(transport, mode=sdk_2.MODE) as client:
            await scenario.run(Client(client))


asyncio.run(main())
