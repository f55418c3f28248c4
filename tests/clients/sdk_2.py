"""What clients do with the Python SDK 2.x, and with FastMCP, which is made with it."""
import os

from mcp import MCPError

import scenario

MODE = "legacy" if os.environ["MCP_ERA"] == "legacy" else "auto"


def facts(result):
    return {"isError": bool(result.is_error), "text": result.content[0].text}


class Client:
    """A client of the scenario. `invoke` calls a tool, and `version` is the negotiated revision."""

    def __init__(self, invoke, version):
        self.invoke, self.version = invoke, version

    async def call(self, name, arguments):
        return facts(await self.invoke(name, arguments))

    async def error_of(self, name):
        try:
            await self.invoke(name, {})
        except MCPError as error:
            return error.error.code

    async def cancel(self):
        return await scenario.cancel_task(self, self.invoke("slow", {"seconds": 60}))
