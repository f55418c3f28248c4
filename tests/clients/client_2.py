"""The scenario of the client tests with the Python SDK 2.x, in the era that `MCP_ERA` names (tests/clients/README.md)."""
import asyncio
import json
import os
import ssl
import sys

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

URL, TOKEN, CA, ERA = (os.environ[name] for name in ("MCP_URL", "MCP_TOKEN", "MCP_CA", "MCP_ERA"))


def show(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


def facts(result):
    return {"isError": bool(result.is_error), "text": result.content[0].text}


async def main():
    headers = {"Authorization": f"Bearer {TOKEN}"}
    timeout = httpx2.Timeout(30, read=900)
    async with httpx2.AsyncClient(headers=headers, verify=ssl.create_default_context(cafile=CA), timeout=timeout) as http:
        transport = streamable_http_client(URL, http_client=http)
        async with Client(transport, mode="legacy" if ERA == "legacy" else "auto") as client:
            show("connect", version=client.protocol_version)
            if seconds := os.environ.get("MCP_LONG"):
                result = await client.call_tool("slow", {"seconds": int(seconds)}, read_timeout_seconds=int(seconds) + 60)
                return show("long", **facts(result))
            show("list", tools=[tool.name for tool in (await client.list_tools()).tools])
            show("call", **facts(await client.call_tool("echo", {"text": "hello"})))
            show("null", **facts(await client.call_tool("echo", {"text": "hello", "note": None})))
            show("refused", **facts(await client.call_tool("echo", {"text": 7})))
            show("large", **facts(await client.call_tool("echo", {"text": 725653563933458432})))
            try:
                await client.call_tool("nothing", {})
            except MCPError as error:
                show("unknown", code=error.error.code)
            seen = []

            async def progress(done, total, message):
                seen.append(done)

            await client.call_tool("progress", {"steps": 3}, progress_callback=progress)
            show("progress", seen=seen)
            call = asyncio.create_task(client.call_tool("slow", {"seconds": 60}))
            await asyncio.sleep(0.5)
            call.cancel()
            await asyncio.wait([call])
            show("cancel", isError=True, text="cancelled")
            count = "0"
            while count == "0":
                await asyncio.sleep(0.1)
                count = (await client.call_tool("cancelled", {})).content[0].text
            show("cancelled", isError=False, text=count)
            show("restart")
            await asyncio.to_thread(sys.stdin.readline)
            show("again", **facts(await client.call_tool("echo", {"text": "again"})))


asyncio.run(main())
