"""`python -m spotrelay.instance`, and what the agent's archive runs."""

from spotrelay.instance.main import main

raise SystemExit(main())
