"""Turns the multi-turn tasks of the Python package bfcl-eval into traces: their reference calls, executed by the package's own
tools. Argument: the folder to write to."""

import ast
import copy
import importlib
import inspect
import json
import pathlib
import sys

import bfcl_eval
from bfcl_eval.constants.executable_backend_config import CLASS_FILE_PATH_MAPPING, STATELESS_CLASSES
from common import Folder, call

NAME = "BFCL_v4_multi_turn_base.json"
DATA = pathlib.Path(bfcl_eval.__file__).parent / "data"


def tools(task):
    """Returns the tools of a task, by name, with their servers."""
    found = {}
    for server in task["involved_classes"]:
        instance = getattr(importlib.import_module(CLASS_FILE_PATH_MAPPING[server]), server)()
        if server not in STATELESS_CLASSES:
            instance._load_scenario(copy.deepcopy(task["initial_config"].get(server, {})), long_context=False)
        for name, method in inspect.getmembers(instance, predicate=inspect.ismethod):
            if not name.startswith("_"):
                found[name] = (server, method)
    return found


def run(text, found):
    """Makes a call that is written as Python."""
    node = ast.parse(text, mode="eval").body
    server, method = found[node.func.id]
    positional = zip(inspect.signature(method).parameters, node.args)
    args = {name: ast.literal_eval(value) for name, value in positional}
    args |= {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    try:
        result = method(**args)
    except Exception as error:  # The package reports every exception as the result of the call.
        return call(server, node.func.id, args, f"Error during execution: {error}", True)
    is_error = isinstance(result, dict) and "error" in result
    return call(server, node.func.id, args, json.dumps(result, default=str), is_error)


def read(path):
    """Reads a file of one object a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


folder = Folder(sys.argv[1])
answers = {answer["id"]: answer["ground_truth"] for answer in read(DATA / "possible_answer" / NAME)}
for task in read(DATA / NAME):
    found = tools(task)
    folder.add(task["id"], [run(text, found) for turn in answers[task["id"]] for text in turn])
folder.finish("bfcl")
