"""Asks with `httpx`, which knows of Sidekey from its environment alone. See `harness/probe.py`."""

import json
import os
import sys

import httpx

for argument in sys.argv[1:]:
    url, _, host = argument.partition(" ")
    headers = {"authorization": f"Bearer {os.environ['TOKEN']}", **({"host": host} if host else {})}
    try:
        answer = httpx.get(url, headers=headers, timeout=20)
        print(json.dumps({"status": answer.status_code, "text": answer.text}))
    except httpx.HTTPError as error:
        print(json.dumps({"error": str(error)}))
