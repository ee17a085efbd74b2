"""Starts the server as `serve` does, with the limits in TEST_LIMITS (a JSON object)."""

import json
import os
import resource
import sys

from lyftr_server import http1, server
from lyftr_server.config import Config
from lyftr_server.log import JsonLines, Output

if __name__ == "__main__":
    files = int(os.environ.get("TEST_OPEN_FILES", "0"))
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    settings = Config.from_environ()
    output = Output()
    lines = JsonLines(output, settings.app_name, settings.env)
    lines.install(settings.log_level)
    limits = {"body_bytes": settings.max_body_bytes, "budget_bytes": settings.body_budget_bytes}
    limits |= json.loads(os.environ["TEST_LIMITS"])
    try:
        sys.exit(server.run(settings, output, lines, http1.ClientLimits(**limits)))
    finally:
        output.close()
