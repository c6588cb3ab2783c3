"""Every kind of event that is read here, by who sends it. One line for each rule of the stack."""

from __future__ import annotations

from handlers import (
    attempt_report,
    capacity,
    checkpoint_committed,
    checkpoint_damaged,
    interruption_warning,
    notice_seen,
    rebalance_recommendation,
    run_cancelled,
    run_submitted,
    state_change,
)
from handlers.events import OURS, RUN_DUE, Kinds

EC2 = "aws.ec2"

FROM_EC2: Kinds = {
    (EC2, interruption_warning.KIND): interruption_warning.translate,
    (EC2, rebalance_recommendation.KIND): rebalance_recommendation.translate,
    (EC2, state_change.KIND): state_change.translate,
    (EC2, capacity.INTERRUPTION): capacity.translate_interruption,
    **{(EC2, kind): capacity.translate_expiration for kind in capacity.EXPIRATION},
}

FROM_US: Kinds = {
    (OURS, run_submitted.KIND): run_submitted.translate,
    (OURS, RUN_DUE): run_submitted.translate,
    (OURS, run_cancelled.KIND): run_cancelled.translate,
    (OURS, attempt_report.KIND): attempt_report.translate,
    (OURS, checkpoint_committed.KIND): checkpoint_committed.translate,
    (OURS, checkpoint_damaged.KIND): checkpoint_damaged.translate,
    (OURS, notice_seen.NOTICE): notice_seen.translate_notice,
    (OURS, notice_seen.REBALANCE): notice_seen.translate_rebalance,
}
