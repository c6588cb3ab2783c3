"""What the strategies draw is what they say."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from spotrelay.core.codec import to_json
from spotrelay.core.facts import Fact
from spotrelay.core.row import decode_run, encode_run
from spotrelay.core.run import Run
from spotrelay.core.spec import Spec, parse_spec
from spotrelay.testing import strategies

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(strategies.specs())
def test_a_drawn_spec_is_accepted(spec: Spec) -> None:
    assert parse_spec(to_json(spec)) == spec


@quick
@given(strategies.runs())
def test_a_drawn_run_comes_back_from_its_row(run: Run) -> None:
    assert decode_run(encode_run(run), run.run_id) == run


@quick
@given(strategies.facts("r1"))
def test_a_drawn_fact_has_a_json_form(fact: Fact) -> None:
    assert isinstance(to_json(fact), dict)
