"""SSM Parameter Store and Secrets Manager, asked with the machine's role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spotrelay.aws.error_codes import STALE_CREDENTIALS
from spotrelay.aws.failures import FAILURES, Kind, code_of, failed_read, kind_of
from spotrelay.core.errors import InvalidInput, SpotrelayError


class AwsSecrets:
    """A `SecretSource`. Opens a client only for the kind of reference that a run has."""

    def __init__(self, client: Callable[[str], Any]) -> None:
        self._client = client

    def parameter(self, name: str) -> str:
        """The decrypted value of an SSM parameter."""
        ssm = self._client("ssm")
        try:
            answer = ssm.get_parameter(Name=name, WithDecryption=True)
        except FAILURES as error:
            raise _failed(error, f"ssm:{name}") from error
        return str(answer["Parameter"]["Value"])

    def secret(self, name: str) -> str:
        """The text of a Secrets Manager secret."""
        manager = self._client("secretsmanager")
        try:
            answer = manager.get_secret_value(SecretId=name)
        except FAILURES as error:
            raise _failed(error, f"secretsmanager:{name}") from error
        if "SecretString" not in answer:
            raise InvalidInput(f"secretsmanager:{name} holds bytes, and a variable can only hold text")
        return str(answer["SecretString"])


def _failed(error: Exception, reference: str) -> SpotrelayError:
    """A right that is missing does not come by waiting, unless it is the credentials that are stale."""
    if kind_of(error) is Kind.ACCESS and code_of(error) not in STALE_CREDENTIALS:
        return InvalidInput(f"the machine's role may not read {reference}: allow it in the stack's configuration")
    return failed_read(error, f"reading {reference}", "there is none in the home region; create it or mend the spec")
