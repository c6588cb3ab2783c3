"""What botocore raises, as the errors of the core. Told apart by class and code only."""

from __future__ import annotations

from enum import Enum

from botocore import exceptions as boto

from spotrelay.aws import error_codes as codes
from spotrelay.core.errors import Contention, InvalidInput, Missing, OutcomeUnknown, SpotrelayError, Unavailable

FAILURES = (boto.BotoCoreError, boto.ClientError)  # everything that a call of a client may raise

NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
)  # nothing was sent for want of credentials

LOOK_AT_CREDENTIALS = "check the credentials and their rights with `spotrelay doctor`"


class Kind(Enum):
    """What a failed call tells."""

    THROTTLE = "throttle"  # nothing was done
    ACCESS = "access"  # not let in
    ABSENT = "absent"  # what it speaks about is not there
    PRECONDITION = "precondition"  # a condition of the write was not met
    REQUEST = "request"  # the request itself is wrong
    UNSENT = "unsent"  # it never left this machine
    UNREACHED = "unreached"  # no connection: this try was not sent, an earlier one may have been
    CUT = "cut"  # sent, and no clear answer


def code_of(error: Exception) -> str:
    """The bare AWS error code, or the class of an error that has none."""
    if isinstance(error, boto.ClientError):
        return codes.bare(str(error.response.get("Error", {}).get("Code", "")))
    return type(error).__name__


def kind_of(error: Exception) -> Kind:
    """What this failure tells, by its code if AWS answered, by its class otherwise."""
    if isinstance(error, boto.ClientError):
        return _kind_of_answer(error)
    if isinstance(error, NO_CREDENTIALS):
        return Kind.ACCESS
    if isinstance(error, (boto.ParamValidationError, boto.NoRegionError, boto.InvalidEndpointConfigurationError)):
        return Kind.UNSENT
    if isinstance(error, (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError)):
        return Kind.UNREACHED
    return Kind.CUT


def _kind_of_answer(error: boto.ClientError) -> Kind:
    code = code_of(error)
    by_code = (
        (codes.UNDER_WAY, Kind.CUT),
        (codes.THROTTLES, Kind.THROTTLE),
        (codes.PRECONDITION, Kind.PRECONDITION),
        (codes.ACCESS, Kind.ACCESS),
        (codes.ABSENT, Kind.ABSENT),
        (codes.SERVER, Kind.CUT),
    )
    known = next((kind for names, kind in by_code if code in names), None)
    if known is not None:
        return known
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return Kind.CUT if status >= 500 or status < 400 else Kind.REQUEST


def failed_read(error: Exception, doing: str, absent: str = "") -> SpotrelayError:
    """The error to raise for a read, or any call that may be repeated without harm.

    Args:
        doing: what was tried, as a gerund: "reading run r1".
        absent: what to tell when the thing is not there; empty where that cannot be.
    """
    match kind_of(error):
        case Kind.THROTTLE:
            return Contention(f"{doing}: AWS answers {code_of(error)}; try again a little later")
        case Kind.ACCESS:
            return Unavailable(f"{doing}: not let in ({code_of(error)}); {LOOK_AT_CREDENTIALS}")
        case Kind.ABSENT if absent:
            return Missing(f"{doing}: {absent}")
        case Kind.REQUEST | Kind.UNSENT | Kind.PRECONDITION:
            return InvalidInput(f"{doing}: {error}")
        case _:
            return Unavailable(f"{doing}: no answer ({code_of(error)}); try again later")


def failed_write(error: Exception, doing: str, absent: str = "") -> SpotrelayError:
    """The error to raise for a write, which may have taken effect although no answer came.

    A missing connection counts as unknown too: the SDK may have sent an earlier try of this call.
    """
    if kind_of(error) in (Kind.CUT, Kind.UNREACHED):
        return OutcomeUnknown(f"{doing}: no clear answer ({code_of(error)}); read back before anything else")
    return failed_read(error, doing, absent)
