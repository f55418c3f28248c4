"""The scenario of the client tests with the Python SDK 1.x (tests/clients/README.md)."""
import asyncio
import json
import os
import ssl
import sys
from datetime import timedelta

import httpx
from mcp import ClientSession, McpError, types
from mcp.client.streamable_http import streamable_http_client

URL, TOKEN, CA = (os.environ[name] for name in ("MCP_URL", "MCP_TOKEN", "MCP_CA"))


def show(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


def facts(result):
    return {"isError": bool(result.isError), "text": result.content[0].text}


async def main():
    headers = {"Authorization": f"Bearer {TOKEN}"}
    http = httpx.AsyncClient(headers=headers, verify=ssl.create_default_context(cafile=CA), timeout=httpx.Timeout(30, read=900))
    async with http, streamable_http_client(URL, http_client=http) as (read, write, _), ClientSession(read, write) as session:
        initialized = await session.initialize()
        show("connect", version=initialized.protocolVersion)
        if seconds := os.environ.get("MCP_LONG"):
            timeout = timedelta(seconds=int(seconds) + 60)
            result = await session.call_tool("slow", {"seconds": int(seconds)}, read_timeout_seconds=timeout)
            return show("long", **facts(result))
        show("list", tools=[tool.name for tool in (await session.list_tools()).tools])
        show("call", **facts(await session.call_tool("echo", {"text": "hello"})))
        show("null", **facts(await session.call_tool("echo", {"text": "hello", "note": None})))
        show("refused", **facts(await session.call_tool("echo", {"text": 7})))
        show("large", **facts(await session.call_tool("echo", {"text": 725653563933458432})))
        try:
            await session.call_tool("nothing", {})
        except McpError as error:
            show("unknown", code=error.error.code)
        seen = []

        async def progress(done, total, message):
            seen.append(done)

        await session.call_tool("progress", {"steps": 3}, progress_callback=progress)
        show("progress", seen=seen)
        # This version does not notify the server by itself.
        call = asyncio.create_task(session.call_tool("slow", {"seconds": 60}))
        await asyncio.sleep(0.5)
        cancelled = types.CancelledNotificationParams(requestId=session._request_id - 1)
        cancelled = types.CancelledNotification(method="notifications/cancelled", params=cancelled)
        await session.send_notification(types.ClientNotification(cancelled))
        show("cancel", **facts(await call))
        count = "0"
        while count == "0":
            await asyncio.sleep(0.1)
            count = (await session.call_tool("cancelled", {})).content[0].text
        show("cancelled", isError=False, text=count)
        show("restart")
        await asyncio.to_thread(sys.stdin.readline)
        show("again", **facts(await session.call_tool("echo", {"text": "again"})))


asyncio.run(main())
