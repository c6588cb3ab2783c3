"""`python -m spotrelay.instance`: the agent from a checkout; on a machine it is `archive.py` that starts it."""

from spotrelay.instance.main import main

raise SystemExit(main())
