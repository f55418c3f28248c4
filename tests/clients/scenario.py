"""The scenario of the client tests (README.md), for the clients in Python. A client is an object with

- `version`: the negotiated revision,
- `tools()`: the names of the tools,
- `call(name, arguments)`: a call's `isError` and text,
- `error_of(name)`: the code of the error that calling an unknown tool ends with,
- `progress(callback)`: a call of the tool `progress` whose progress goes to `callback(done, total, message)`,
- `cancel()`: `isError` and text of a call of the tool `slow` that is cancelled after half a second,
- `long(seconds)`: a call of the tool `slow` that takes this long, if the client is tested with one.
"""
import asyncio
import json
import os
import sys

URL, TOKEN, CA = (os.environ[name] for name in ("MCP_URL", "MCP_TOKEN", "MCP_CA"))
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def show(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


async def run(client):
    show("connect", version=client.version)
    if seconds := os.environ.get("MCP_LONG"):
        return show("long", **await client.long(int(seconds)))
    show("list", tools=await client.tools())
    show("call", **await client.call("echo", {"text": "hello"}))
    show("null", **await client.call("echo", {"text": "hello", "note": None}))
    show("refused", **await client.call("echo", {"text": 7}))
    show("large", **await client.call("echo", {"text": 725653563933458432}))
    show("structured", **await client.call("structured", {"n": 7}))
    show("structured-refused", **await client.call("structured", {"n": -1}))
    show("structured-failed", **await client.call("structured", {"n": 0}))
    show("unknown", code=await client.error_of("nothing"))
    seen = []

    async def progress(done, total, message):
        seen.append(done)

    await client.progress(progress)
    show("progress", seen=seen)
    show("cancel", **await client.cancel())
    count = "0"
    while count == "0":
        await asyncio.sleep(0.1)
        count = (await client.call("cancelled", {}))["text"]
    show("cancelled", isError=False, text=count)
    show("restart")
    await asyncio.to_thread(sys.stdin.readline)
    show("again", **await client.call("echo", {"text": "again"}))


async def started(client):
    """Waits until the server works on a call of the tool slow."""
    while (await client.call("started", {}))["text"] == "0":
        await asyncio.sleep(0.1)


async def cancel_task(client, call):
    """Cancels a call of a client that then notifies the server by itself."""
    call = asyncio.create_task(call)
    await started(client)
    call.cancel()
    await asyncio.wait([call])
    return {"isError": True, "text": "cancelled"}
