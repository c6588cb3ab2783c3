"""How each of AWS's protocols says no."""

from __future__ import annotations

import json
from xml.sax.saxutils import escape

Answer = tuple[int, dict[str, str], bytes]

_JSON_SERVICES = ("dynamodb", "events", "lambda", "scheduler", "logs", "ssm", "sqs", "kms", "monitoring")
_EC2_CODES = {
    "SignatureDoesNotMatch": (401, "AuthFailure"),
    "UnrecognizedClientException": (401, "AuthFailure"),
    "InvalidClientTokenId": (401, "AuthFailure"),
    "InvalidToken": (401, "AuthFailure"),
    "MissingAuthenticationToken": (401, "AuthFailure"),
    "ExpiredTokenException": (400, "RequestExpired"),
}


def refuse(service: str, code: str, message: str, request_id: str, status: int = 403) -> Answer:
    """An error answer in the form that the service's clients read."""
    if service == "ec2":
        status, code = _EC2_CODES.get(code, (status, code))
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{escape(code)}</Code>'
            f"<Message>{escape(message)}</Message></Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
        return status, {"content-type": "text/xml;charset=UTF-8"}, text.encode()
    if service in _JSON_SERVICES:
        body = json.dumps({"__type": code, "message": message}).encode()
        return status, {"content-type": "application/json", "x-amzn-errortype": code}, body
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if service == "s3":
        text = f"<Error>{error}<RequestId>{request_id}</RequestId></Error>"
    else:
        told = f"<Error><Type>Sender</Type>{error}</Error>"
        text = f"<ErrorResponse>{told}<RequestId>{request_id}</RequestId></ErrorResponse>"
    return status, {"content-type": "text/xml"}, ('<?xml version="1.0" encoding="UTF-8"?>' + text).encode()
