"""What counted requests cost, at AWS's list prices.

Source:
    List prices of us-east-1 as we knew them on the day below: DynamoDB on demand, Lambda on arm64, SQS standard.
    They were not fetched: compare them with AWS's price pages before you rely on the sum. Logs, metrics and S3 are
    left out, since they go by bytes that depend on you.
"""

from __future__ import annotations

from typing import Any

AS_OF = "2026-11-24"
PRICES = {
    "dynamodb_million_read_units": 0.125,
    "dynamodb_million_write_units": 0.625,
    "lambda_million_calls": 0.20,
    "lambda_gb_second": 0.0000133334,
    "sqs_million_requests": 0.40,
}  # dollars
LOOK_S, LOOK_GB = 0.05, 0.5  # a look at a healthy run: six reads and a write after one another, beside nine others
SQS_OF_A_LOOK = 0.1 * 3  # sent, received and deleted, ten at a time
BEATS = 6  # heartbeats in a minute, one write unit each


def million_minutes(look: dict[str, float]) -> dict[str, Any]:
    """Dollars of a million minutes in which a run only trains, by what costs them.

    Args:
        look: DynamoDB's units of one minute's look, as counted.
    """
    parts = {
        "heartbeats": BEATS * PRICES["dynamodb_million_write_units"],
        "looks_reading": look["read_units"] * PRICES["dynamodb_million_read_units"],
        "looks_writing": look["write_units"] * PRICES["dynamodb_million_write_units"],
        "looks_lambda": 0.1 * PRICES["lambda_million_calls"] + 1e6 * LOOK_S * LOOK_GB * PRICES["lambda_gb_second"],
        "looks_sqs": SQS_OF_A_LOOK * PRICES["sqs_million_requests"],
    }
    rounded = {name: round(dollars, 3) for name, dollars in parts.items()}
    return {"as_of": AS_OF, "dollars": round(sum(parts.values()), 2), **rounded}
