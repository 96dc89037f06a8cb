"""Look up everything that is installed in an advisory database (pip-audit), and say what could not be looked up.

pip-audit alone calls it a success where no package was found in the database, as behind a mirror or without a network.
Here that is told, and with ``AUDIT_STRICT=1`` it is a failure; a known weakness always is.

    python deploy/release/audit.py SITE_PACKAGES
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

#: The project itself is in no database.
OURS: Final = "stream-fp"


def main() -> int:
    """Run the audit; returns the exit status."""
    command = ["pip-audit", "--format", "json", "--progress-spinner", "off", "--path", sys.argv[1]]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - as written above
    try:
        packages: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (ended.stderr.strip().splitlines() or ["no answer"])[-1]
        return _not_looked_up(f"pip-audit: {reason}")
    for package in packages:
        for weakness in package.get("vulns", []):
            mended = ", ".join(weakness["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {weakness['id']}, mended in {mended}")  # noqa: T201
    weak = [package for package in packages if package.get("vulns")]
    unknown = [package["name"] for package in packages if "skip_reason" in package and package["name"] != OURS]
    if not packages:
        return _not_looked_up(f"there is nothing in {sys.argv[1]}")
    print(f"{len(packages)} packages, {len(weak)} with known weaknesses")  # noqa: T201
    if weak:
        return 1
    if unknown:
        return _not_looked_up(f"{len(unknown)} of {len(packages)} packages are not in the database that was asked")
    return 0


def _not_looked_up(why: str) -> int:
    print(f"NOT LOOKED UP: {why}", file=sys.stderr)  # noqa: T201
    return 1 if os.environ.get("AUDIT_STRICT") == "1" else 0


if __name__ == "__main__":
    sys.exit(main())
