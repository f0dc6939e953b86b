"""PyPI `openai-agents`, as an agent's server of tools; no model is asked."""

import asyncio

from agents.mcp import MCPServerStreamableHttp
from talk import ARGUMENTS, HEADERS, TOOL, URL, obey


async def main():
    async with MCPServerStreamableHttp(params={"url": URL, "headers": HEADERS}) as server:
        assert TOOL in [tool.name for tool in await server.list_tools()]

        async def call():
            answer = await server.call_tool(TOOL, ARGUMENTS)
            return bool(getattr(answer, "is_error", None) or getattr(answer, "isError", None)), answer.content[0].text

        await obey(call)


asyncio.run(main())
