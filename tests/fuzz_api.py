"""Schemathesis over the OpenAPI of a running server: ``python tests/fuzz_api.py MODEL EXAMPLES [its options]``.

Requests that fit the schemas and requests that do not, so many of each route; no answer may be a 5xx, or take a minute.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKS = "not_a_server_error,status_code_conformance"


def main() -> int:
    model, examples, *options = sys.argv[1:]
    tools = Path(sys.executable).parent
    serve = [tools / "ingle", "serve", model, "--port", "0", "--ctx", "64", "--admin", "--log-level", "error"]
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"INGLE_HOME": home, "HF_HOME": home, "HF_HUB_OFFLINE": "1"}
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env=environment) as server:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            fuzz = [tools / "schemathesis", "run", f"{url}/openapi.json", "--phases", "examples,coverage,fuzzing"]
            # One worker: ast.parse, with which strategies are described, can fail in several threads (Python 3.11).
            fuzz += ["-n", examples, "--mode", "all", "-c", CHECKS, "--continue-on-failure", "-w", "1"]
            fuzz += ["--request-timeout", "60", "--suppress-health-check", "all", *options]
            failed = subprocess.run(fuzz, cwd=home, check=False).returncode
            lives = server.poll() is None
            server.terminate()
    return failed or (not lives) or server.returncode


if __name__ == "__main__":
    raise SystemExit(main())
