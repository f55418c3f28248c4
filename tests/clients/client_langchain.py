"""The scenario of the client tests with langchain-mcp-adapters (tests/clients/README.md). What agents do goes through the
tools that it makes, the rest through the session of the Python SDK below it."""
import asyncio
import json
import os
import sys

from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools
from mcp import McpError, types

URL, TOKEN = (os.environ[name] for name in ("MCP_URL", "MCP_TOKEN"))


def show(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


async def main():
    headers = {"Authorization": f"Bearer {TOKEN}"}
    client = MultiServerMCPClient({"files": {"transport": "streamable_http", "url": URL, "headers": headers}})
    async with client.session("files", auto_initialize=False) as session:
        show("connect", version=(await session.initialize()).protocolVersion)
        tools = {tool.name: tool for tool in await load_mcp_tools(session)}
        show("list", tools=list(tools))

        async def call(name, arguments):
            message = await tools[name].ainvoke({"type": "tool_call", "id": "1", "name": name, "args": arguments})
            return {"isError": message.status == "error", "text": message.text}

        show("call", **await call("echo", {"text": "hello"}))
        show("null", **await call("echo", {"text": "hello", "note": None}))
        show("refused", **await call("echo", {"text": 7}))
        show("large", **await call("echo", {"text": 725653563933458432}))
        try:
            await session.call_tool("nothing", {})
        except McpError as error:
            show("unknown", code=error.error.code)
        seen = []

        async def progress(done, total, message):
            seen.append(done)

        await session.call_tool("progress", {"steps": 3}, progress_callback=progress)
        show("progress", seen=seen)
        slow = asyncio.create_task(session.call_tool("slow", {"seconds": 60}))
        await asyncio.sleep(0.5)
        cancelled = types.CancelledNotificationParams(requestId=session._request_id - 1)
        cancelled = types.CancelledNotification(method="notifications/cancelled", params=cancelled)
        await session.send_notification(types.ClientNotification(cancelled))
        show("cancel", isError=bool((await slow).isError), text="cancelled")
        count = "0"
        while count == "0":
            await asyncio.sleep(0.1)
            count = (await call("cancelled", {}))["text"]
        show("cancelled", isError=False, text=count)
        show("restart")
        await asyncio.to_thread(sys.stdin.readline)
        show("again", **await call("echo", {"text": "again"}))


asyncio.run(main())
