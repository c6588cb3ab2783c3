"""SSM Parameter Store and Secrets Manager, asked with the machine's role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from spotrelay.core.errors import InvalidInput, Missing, SpotrelayError, Unavailable

ABSENT = frozenset({"ParameterNotFound", "ResourceNotFoundException"})
DENIED = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedOperation"})


class AwsSecrets:
    """A `SecretSource`. Opens a client only for the kind of reference that a run has."""

    def __init__(self, client: Callable[[str], Any]) -> None:
        self._client = client

    def parameter(self, name: str) -> str:
        """The decrypted value of an SSM parameter."""
        answer = self._ask("ssm", name, lambda ssm: ssm.get_parameter(Name=name, WithDecryption=True))
        return str(answer["Parameter"]["Value"])

    def secret(self, name: str) -> str:
        """The text of a Secrets Manager secret."""
        answer = self._ask("secretsmanager", name, lambda manager: manager.get_secret_value(SecretId=name))
        if "SecretString" not in answer:
            raise InvalidInput(f"secretsmanager:{name} holds bytes, and a variable can only hold text")
        return str(answer["SecretString"])

    def _ask(self, service: str, name: str, action: Callable[[Any], Any]) -> Any:
        reference = f"{service}:{name}"
        try:
            return action(self._client(service))
        except ClientError as error:
            raise _typed(reference, error) from None  # its text is not needed, and may repeat more than the code
        except BotoCoreError as error:
            raise Unavailable(f"{reference} cannot be read: {error}") from error


def _typed(reference: str, error: ClientError) -> SpotrelayError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in ABSENT:
        return Missing(f"there is no {reference} in this account and home region: create it, or mend the run's spec")
    if code in DENIED:
        return InvalidInput(f"the machine's role may not read {reference}: allow it in the stack's configuration")
    return Unavailable(f"{reference} cannot be read: {code}")
