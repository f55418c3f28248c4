"""What clients do with a session of the Python SDK 1.x."""
import asyncio
from datetime import timedelta

from mcp import McpError, types

import scenario


def facts(result):
    return {"isError": bool(result.isError), "text": result.content[0].text}


class Session:
    """A session as a client of the scenario."""

    def __init__(self, session, version):
        self.session, self.version = session, version

    async def tools(self):
        return [tool.name for tool in (await self.session.list_tools()).tools]

    async def call(self, name, arguments):
        return facts(await self.session.call_tool(name, arguments))

    async def error_of(self, name):
        try:
            await self.session.call_tool(name, {})
        except McpError as error:
            return error.error.code

    async def progress(self, callback):
        await self.session.call_tool("progress", {"steps": 3}, progress_callback=callback)

    async def cancel(self):
        # This version does not notify the server by itself.
        number = self.session._request_id
        call = asyncio.create_task(self.session.call_tool("slow", {"seconds": 60}))
        # The call takes its number before the next one is made.
        await asyncio.sleep(0)
        await scenario.started(self)
        cancelled = types.CancelledNotificationParams(requestId=number)
        cancelled = types.CancelledNotification(method="notifications/cancelled", params=cancelled)
        await self.session.send_notification(types.ClientNotification(cancelled))
        return facts(await call)

    async def long(self, seconds, progress):
        options = {"read_timeout_seconds": timedelta(seconds=seconds + 60), "progress_callback": progress}
        return facts(await self.session.call_tool("slow", {"seconds": seconds}, **options))
