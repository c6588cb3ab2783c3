"""The whole loop on a real AWS account, under a ceiling, and nothing left behind.

`make acceptance-aws`, or `python -m tests.acceptance_aws --help`. The last line is one JSON object;
the exit status is 0 when it passed, 1 when it did not, 2 when nothing was done.
"""

from __future__ import annotations

import sys

from tests.acceptance_aws.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
