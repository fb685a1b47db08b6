"""The deployment guide's smoke tests: ADDRESS answers /metrics, and /api/version says VERSION."""

import json
import sys
import urllib.request


def get(address, path):
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as response:
            return response.read().decode()
    except OSError as error:
        sys.exit(f"{path}: {error}")


def main(address, version):
    if "duckdb_query_duration_seconds" not in get(address, "/metrics"):
        sys.exit("/metrics does not show the queries")
    found = json.loads(get(address, "/api/version"))["version"]
    if found != version:
        sys.exit(f"/api/version says {found}, not {version}")


if __name__ == "__main__":
    main(*sys.argv[1:])
