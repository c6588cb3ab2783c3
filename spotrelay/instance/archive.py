"""What the agent's archive runs, where it is `__main__.py` beside the two folders of `infra/agent.py`."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE / "shim"), str(HERE / "spotrelay-libs")]  # the image's own libraries come after

from spotrelay.instance.main import main  # noqa: E402

raise SystemExit(main())
