"""The scenario of the client tests (README.md), for the clients in Python. A client is an object with

- `version`: the negotiated revision,
- `tools()`: the names of the tools,
- `call(name, arguments)`: a call's `isError` and text,
- `error_of(name)`: the code of the error that calling an unknown tool ends with,
- `progress(callback)`: a call of the tool `progress` whose progress goes to `callback(done, total, message)`,
- `cancel()`: `isError` and text of a call of the tool `slow` that is cancelled after half a second,
- `long(seconds, progress)`: a call of the tool `slow` that takes this long, whose progress goes to a callback if there is one;
  if the client is tested with one.
"""
import asyncio
import json
import os
import sys

try:
    from httpx2 import Auth as AUTH
except ImportError:
    from httpx import Auth as AUTH

URL, TOKEN, CA = (os.environ[name] for name in ("MCP_URL", "MCP_TOKEN", "MCP_CA"))
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def show(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


async def run(client):
    show("connect", version=client.version)
    if seconds := os.environ.get("MCP_LONG"):
        seen = []

        async def progress(done, total, message):
            seen.append(done)

        result = await client.long(int(seconds), progress if "MCP_LONG_PROGRESS" in os.environ else None)
        return show("long", **result, seen=len(seen))
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


async def failure(call):
    """Returns what a call ends with that fails or is refused. None if it succeeds."""
    try:
        result = await call
        return result["text"] if result["isError"] else None
    except Exception as error:
        return repr(error)


async def said():
    """Waits for a line of the test."""
    await asyncio.to_thread(sys.stdin.readline)


async def refusals(connect):
    """The scenario of refusals that the gateway gives from the headers alone. `connect(auth)` connects a client whose requests
    are authorised by `auth`."""
    async with connect(Header()) as client:
        show("too-large", error=await failure(client.call("echo", {"text": "x" * 1_000_000})))
        show("after-too-large", **await client.call("echo", {"text": "after"}))
        show("ready")
        await said()
        error = None
        while error is None:
            error = await failure(client.call("echo", {"text": "flooded"}))
        show("flooded", error=error)
        await said()
        while await failure(client.call("echo", {"text": "flooded"})) is not None:
            await asyncio.sleep(0.1)
        show("after-flooded", **await client.call("echo", {"text": "after"}))
    try:
        async with connect(Header(os.environ["MCP_EXPIRED"])):
            show("expired", error=None)
    except Exception as error:
        show("expired", error=repr(error))
    auth = File(os.environ["MCP_TOKEN_FILE"])
    show("token-read")
    await said()
    async with connect(auth) as client:
        show("read-again", **await client.call("echo", {"text": "after"}))


class Header(AUTH):
    """Authorises each request with the same token."""

    def __init__(self, token=TOKEN):
        self.token = token

    def auth_flow(self, request):
        request.headers["Authorization"] = f"Bearer {self.token}"
        yield request


class File(AUTH):
    """Authorises each request with the token in a file, which is read again if it is refused. What is answered with 401 has not
    been done, so repeating it is safe."""

    def __init__(self, path):
        self.path = path
        self.token = self.read()

    def read(self):
        with open(self.path) as file:
            return file.read()

    def auth_flow(self, request):
        request.headers["Authorization"] = f"Bearer {self.token}"
        response = yield request
        if response.status_code == 401:
            self.token = self.read()
            request.headers["Authorization"] = f"Bearer {self.token}"
            yield request


async def main(connect):
    """Goes through the scenario that the test asks for. `connect(auth)` is as for `refusals`."""
    if "MCP_REFUSALS" in os.environ:
        return await refusals(connect)
    async with connect(Header()) as client:
        await run(client)
