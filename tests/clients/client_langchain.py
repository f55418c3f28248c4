"""The scenario of the client tests with langchain-mcp-adapters (tests/clients/README.md). What agents do goes through the
tools that it makes, the rest through the session of the Python SDK below it."""
import asyncio

from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools

import scenario
import sdk_1


class Tools(sdk_1.Session):
    async def tools(self):
        self.made = {tool.name: tool for tool in await load_mcp_tools(self.session)}
        return list(self.made)

    async def call(self, name, arguments):
        message = await self.made[name].ainvoke({"type": "tool_call", "id": "1", "name": name, "args": arguments})
        return {"isError": message.status == "error", "text": message.text}


async def main():
    server = {"transport": "streamable_http", "url": scenario.URL, "headers": scenario.HEADERS}
    async with MultiServerMCPClient({"files": server}).session("files", auto_initialize=False) as session:
        await scenario.run(Tools(session, (await session.initialize()).protocolVersion))


asyncio.run(main())
