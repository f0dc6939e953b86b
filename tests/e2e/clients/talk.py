"""What the Python clients share: the URL and key they are given, and the calls they make when they are told to."""

import asyncio
import json
import os
import sys

URL, TOOL, ARGUMENTS = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
HEADERS = {"Authorization": f"Bearer {os.environ['HOLDPOINT_KEY']}"}


async def obey(call):
    """Calls once for every line on stdin, in one session, and prints what came."""
    while await asyncio.to_thread(sys.stdin.readline):
        is_error, text = await call()
        print(json.dumps({"error": is_error, "text": text}), flush=True)
