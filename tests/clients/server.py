"""The tool server of the client tests: tools that answer, report progress, take long, and tell what was cancelled."""
import json
import sys
import threading
import time

lock = threading.Lock()
started, cancelled = [], []


def tool(name, **properties):
    return {"name": name, "description": f"The tool {name}", "inputSchema": {"type": "object", "properties": properties}}


STRUCTURED = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = [
    tool("echo", text={"type": "string"}, note={"type": "string"}),
    tool("progress", steps={"type": "integer"}),
    tool("slow", seconds={"type": "integer"}),
    tool("started"),
    tool("cancelled"),
    {**tool("structured", n={"type": "integer"}), "outputSchema": STRUCTURED},
]


def send(**message):
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def call(id, name, arguments, meta):
    text, more = "done", {}
    if name == "echo":
        text = json.dumps(arguments, sort_keys=True)
    elif name == "progress":
        for step in range(arguments["steps"]):
            send(method="notifications/progress", params={"progressToken": meta["progressToken"], "progress": step + 1})
            time.sleep(0.05)
    elif name == "slow":
        started.append(id)
        seconds, early = arguments["seconds"], 10
        if seconds > early and "progressToken" in meta:
            time.sleep(early)
            send(method="notifications/progress", params={"progressToken": meta["progressToken"], "progress": 1})
            seconds -= early
        time.sleep(seconds)
    elif name == "started":
        text = str(len(started))
    elif name == "cancelled":
        text = str(len(cancelled))
    elif name == "structured":
        if arguments.get("n", 0) == 0:
            text, more = "nothing to count", {"isError": True}
        else:
            text, more = json.dumps(arguments), {"structuredContent": arguments}
    send(id=id, result={"content": [{"type": "text", "text": text}], **more})


for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params") or {}
    if method == "initialize":
        about = {"name": "clients", "version": "1"}
        send(id=id, result={"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": about})
    elif method == "tools/list":
        send(id=id, result={"tools": TOOLS})
    elif method == "notifications/cancelled":
        cancelled.append(params["requestId"])
    elif method == "tools/call":
        arguments = (id, params["name"], params.get("arguments", {}), params.get("_meta", {}))
        threading.Thread(target=call, args=arguments, daemon=True).start()
