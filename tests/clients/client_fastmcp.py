"""The scenario of the client tests with FastMCP, in the era that `MCP_ERA` names (tests/clients/README.md)."""
import asyncio
import json
import os
import ssl
import sys

from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from mcp import MCPError

URL, TOKEN, CA, ERA = (os.environ[name] for name in ("MCP_URL", "MCP_TOKEN", "MCP_CA", "MCP_ERA"))


def show(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


def facts(result):
    return {"isError": bool(result.is_error), "text": result.content[0].text}


async def main():
    headers = {"Authorization": f"Bearer {TOKEN}"}
    transport = StreamableHttpTransport(URL, headers=headers, verify=ssl.create_default_context(cafile=CA))
    async with Client(transport, mode="legacy" if ERA == "legacy" else "auto") as client:
        show("connect", version=client.session.protocol_version)

        async def call(name, arguments, **options):
            return await client.call_tool(name, arguments, raise_on_error=False, **options)

        show("list", tools=[tool.name for tool in await client.list_tools()])
        show("call", **facts(await call("echo", {"text": "hello"})))
        show("null", **facts(await call("echo", {"text": "hello", "note": None})))
        show("refused", **facts(await call("echo", {"text": 7})))
        show("large", **facts(await call("echo", {"text": 725653563933458432})))
        try:
            await call("nothing", {})
        except MCPError as error:
            show("unknown", code=error.error.code)
        seen = []

        async def progress(done, total, message):
            seen.append(done)

        await call("progress", {"steps": 3}, progress_handler=progress)
        show("progress", seen=seen)
        slow = asyncio.create_task(call("slow", {"seconds": 60}))
        await asyncio.sleep(0.5)
        slow.cancel()
        await asyncio.wait([slow])
        show("cancel", isError=True, text="cancelled")
        count = "0"
        while count == "0":
            await asyncio.sleep(0.1)
            count = (await call("cancelled", {})).content[0].text
        show("cancelled", isError=False, text=count)
        show("restart")
        await asyncio.to_thread(sys.stdin.readline)
        show("again", **facts(await call("echo", {"text": "again"})))


asyncio.run(main())
