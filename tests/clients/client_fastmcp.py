"""The scenario of the client tests with FastMCP, in the era that `MCP_ERA` names (tests/clients/README.md)."""
import asyncio
import functools
import ssl

import fastmcp
from fastmcp.client.transports import StreamableHttpTransport

import scenario
import sdk_2


class Client(sdk_2.Client):
    def __init__(self, client):
        super().__init__(functools.partial(client.call_tool, raise_on_error=False), client.session.protocol_version)
        self.client = client

    async def tools(self):
        return [tool.name for tool in await self.client.list_tools()]

    async def progress(self, callback):
        await self.invoke("progress", {"steps": 3}, progress_handler=callback)


async def main():
    verify = ssl.create_default_context(cafile=scenario.CA)
    transport = StreamableHttpTransport(scenario.URL, headers=scenario.HEADERS, verify=verify)
    async with fastmcp.Client(transport, mode=sdk_2.MODE) as client:
        await scenario.run(Client(client))


asyncio.run(main())
