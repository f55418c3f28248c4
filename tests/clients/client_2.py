"""The scenarios of the client tests with the Python SDK 2.x, in the era that `MCP_ERA` names (tests/clients/README.md)."""
import asyncio
import contextlib
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

    async def long(self, seconds, progress):
        call = self.invoke("slow", {"seconds": seconds}, read_timeout_seconds=seconds + 60, progress_callback=progress)
        return sdk_2.facts(await call)


@contextlib.asynccontextmanager
async def connect(auth):
    verify = ssl.create_default_context(cafile=scenario.CA)
    async with httpx2.AsyncClient(auth=auth, verify=verify, timeout=30) as http:
        transport = streamable_http_client(scenario.URL, http_client=http)
        async with mcp.Client(transport, mode=sdk_2.MODE) as client:
            yield Client(client)


asyncio.run(scenario.main(connect))
