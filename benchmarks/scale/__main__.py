"""What many runs ask of AWS: idle ones, a storm, and the bill. Counted on in-memory ports with the real handlers.

Usage: python -m benchmarks.scale [--runs N] [--storm N]
The last line is one JSON object; the exit status is 1 if the storm did not end exactly.
"""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.scale import idle, storms
from benchmarks.scale.money import million_minutes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="runs at work beside which few are due")
    parser.add_argument("--storm", type=int, default=20_000, help="runs that lose their machines in one second")
    arguments = parser.parse_args()
    crowd = idle.measure(arguments.runs, (0, 10, 100, 1000))
    print(f"sweeps over {arguments.runs} runs are counted", flush=True)
    storm = storms.measure(arguments.storm)
    bill = million_minutes(crowd["healthy_minute"])
    print(json.dumps({"idle": crowd, "storm": storm, "million_idle_run_minutes": bill}))
    sys.exit(0 if storm["exact"] else 1)


if __name__ == "__main__":
    main()
