"""The CDK app: `npx cdk synth` and `npx cdk deploy` run this file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.node import choose_node

choose_node()  # before jsii starts one

from aws_cdk import Annotations, App, Environment, Tags  # noqa: E402

from infra.agent import Archive, agent_archive  # noqa: E402
from infra.assets import BuildFailed, Bundle, Target, hosts_bundle, lambda_bundle  # noqa: E402
from infra.config import BadConfig, Config, cdk_context, read_config  # noqa: E402
from infra.home_stack import HomeStack  # noqa: E402
from infra.region_stack import RegionStack  # noqa: E402


def build_app(
    context: Mapping[str, Any],
    *,
    outdir: Path | None = None,
    validate: bool = True,
    bundle: Bundle | None = None,
    hosts: Bundle | None = None,
    agent: Archive | None = None,
) -> App:
    """The app with all its stacks, not yet synthesised.

    Args:
        context: over that of `cdk.json`.
        validate: whether the library's own slow check of the template runs at synthesis.
        bundle, agent: assets to use instead of building them.
        hosts: of the function that reaches hosts; `bundle` where only that is given.

    Raises:
        BadConfig: the context cannot work.
        BuildFailed: an asset could not be built.
    """
    app = App(
        context={**cdk_context(), **context},
        outdir=None if outdir is None else str(outdir),
        analytics_reporting=False,
        tree_metadata=False,
        stack_traces=False,
        builtin_cloud_formation_validation=validate,
    )
    config = read_config(_context_of(app))
    agent = agent or agent_archive()
    target = Target(config.lambda_architecture, config.lambda_python)
    hosts = hosts or bundle or hosts_bundle(target)
    bundle = bundle or lambda_bundle(target)
    home = HomeStack(
        app,
        config.stack,
        config,
        bundle=bundle,
        hosts=hosts,
        agent=agent,
        env=Environment(region=config.home_region),
        termination_protection=config.protected,
        description="Spotrelay: training runs that outlive EC2 Spot machines",
    )
    if not bundle.compiled:
        slow = f"no Python {config.lambda_python} was found here: the functions go without byte code and start slower"
        Annotations.of(home).add_info_v2("spotrelay:no-byte-code", slow)
    for name, region in config.regions.items():
        further = RegionStack(
            app,
            f"{config.stack}-{name}",
            config,
            region,
            agent=agent,
            agent_key=home.agent_key,
            env=Environment(region=name),
            termination_protection=config.protected,
            description=f"Spotrelay in {name}: forwards events home and can run machines",
        )
        if region.replica:
            home.add_dependency(further, "S3 refuses to replicate into a bucket that is not there")
    Tags.of(app).add("spotrelay:stack", config.stack)
    for key, value in config.tags.items():
        Tags.of(app).add(key, value)
    return app


def _context_of(app: App) -> dict[str, Any]:
    """The context as the app sees it: that of the command line goes over that of the file."""
    names = ["spotrelay", *(f"spotrelay:{field}" for field in Config.model_fields)]
    found = {name: app.node.try_get_context(name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def main() -> int:
    """Synthesise for the CDK command line."""
    try:
        build_app({}, validate=os.environ.get("CDK_VALIDATION") != "false").synth()
    except (BadConfig, BuildFailed) as error:
        print(f"spotrelay: {error}", file=sys.stderr)  # noqa: T201 - the command line shows it to a person
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
