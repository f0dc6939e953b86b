"""PyPI `langchain-mcp-adapters`: the tool as LangChain has it, called as an agent calls it."""

import asyncio

from langchain_core.tools import ToolException
from langchain_mcp_adapters.client import MultiServerMCPClient
from talk import ARGUMENTS, HEADERS, TOOL, URL, obey


async def main():
    client = MultiServerMCPClient({"held": {"transport": "streamable_http", "url": URL, "headers": HEADERS}})
    tool = next(tool for tool in await client.get_tools() if tool.name == TOOL)

    async def call():
        wanted = {"type": "tool_call", "id": "1", "name": TOOL, "args": ARGUMENTS}
        try:
            answer = await tool.ainvoke(wanted)
        except ToolException as e:
            return True, str(e)
        content = answer.content
        text = content if isinstance(content, str) else "".join(part["text"] for part in content)
        return answer.status == "error", text

    await obey(call)


asyncio.run(main())
