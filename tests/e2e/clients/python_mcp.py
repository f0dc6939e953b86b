"""PyPI `mcp` 2.x."""

import asyncio

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from talk import ARGUMENTS, HEADERS, TOOL, URL, obey


async def main():
    async with httpx2.AsyncClient(headers=HEADERS, timeout=30) as http, Client(streamable_http_client(URL, http_client=http)) as client:

        async def call():
            answer = await client.call_tool(TOOL, ARGUMENTS)
            return bool(answer.is_error), answer.content[0].text

        await obey(call)


asyncio.run(main())
