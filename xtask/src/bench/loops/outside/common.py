"""Writes traces in the format of docs/loops.md."""

import json
import pathlib

# The tasks have no times. Agents call every few seconds.
INTERVAL_MS = 5_000


class Folder:
    """Two folders of traces: each task by an agent of its own, and all tasks by one agent, one after the other."""

    def __init__(self, path):
        self.tasks = pathlib.Path(path) / "tasks"
        self.one_agent = pathlib.Path(path) / "one-agent"
        self.tasks.mkdir(parents=True)
        self.one_agent.mkdir(parents=True)
        self.calls = []

    def add(self, name, calls):
        """Adds the calls of a task: pairs of a server and a call."""
        write(self.tasks, name, calls)
        self.calls += calls

    def finish(self, name):
        """Writes the trace of all tasks."""
        write(self.one_agent, name, self.calls)


def call(server, tool, args, result, is_error):
    """Returns one call, without its time."""
    return {"tool": tool, "args": args, "result": result, "is_error": is_error, "server": server}


def write(folder, name, calls):
    """Writes one trace of work."""
    lines = [{"name": name, "label": "work"}]
    lines += [{"at_ms": INTERVAL_MS * number, **one} for number, one in enumerate(calls)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / f"{name}.jsonl").write_text(text)
