"""One table says what an AWS error code means."""

from __future__ import annotations

import pytest

from spotrelay.aws import error_codes as codes
from spotrelay.core.placement import FailureScope

POOL = [
    "InsufficientInstanceCapacity",
    "UnfulfillableCapacity",
    "Unsupported",
    "SpotMaxPriceTooLow",
]
POOL += ["ReservationCapacityExceeded", "InvalidCapacityReservationId.NotFound"]
QUOTA = ["MaxSpotInstanceCountExceeded", "VcpuLimitExceeded", "InstanceLimitExceeded"]
THROTTLE = ["RequestLimitExceeded", "Throttling"]
SERVER = ["InternalError", "Unavailable", "ServiceUnavailable"]
CONFIGURATION = [
    "UnauthorizedOperation",
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    "InvalidFleetConfiguration",
    "InvalidParameterValue",
    "InvalidParameterCombination",
    "InvalidParameter",
    "InvalidUserData.Malformed",
    "InvalidSubnetID.NotFound",
    "InvalidLaunchTemplateId.NotFound",
    "InvalidAMIID.NotFound",
    "IdempotentParameterMismatch",
    "HttpTokensEnforced",
]
KNOWN = {
    FailureScope.POOL: POOL,
    FailureScope.ZONE: ["InsufficientFreeAddressesInSubnet"],
    FailureScope.QUOTA: QUOTA,
    FailureScope.ACCOUNT: ["MaxFleetCountExceeded"],
    FailureScope.THROTTLE: THROTTLE,
    FailureScope.SERVER: SERVER,
    FailureScope.CONFIGURATION: CONFIGURATION,
}


@pytest.mark.parametrize(("scope", "code"), [(scope, code) for scope, names in KNOWN.items() for code in names])
def test_every_documented_code_has_its_scope(scope: FailureScope, code: str) -> None:
    assert codes.scope_of(code) is scope


@pytest.mark.parametrize("prefix", ["Server.", "Client."])
def test_the_prefix_of_a_state_reason_changes_nothing(prefix: str) -> None:
    assert codes.scope_of(f"{prefix}InsufficientInstanceCapacity") is FailureScope.POOL


@pytest.mark.parametrize("code", ["", "SomethingNew", "insufficientinstancecapacity", "503"])
def test_a_code_that_nobody_wrote_down_is_unknown(code: str) -> None:
    assert codes.scope_of(code) is FailureScope.UNKNOWN


def test_an_invalid_configuration_beside_one_override_is_about_that_pool_only() -> None:
    assert codes.override_scope_of("InvalidFleetConfiguration") is FailureScope.POOL
    assert codes.override_scope_of("UnauthorizedOperation") is FailureScope.CONFIGURATION


def test_no_code_means_two_things() -> None:
    groups = (codes.THROTTLES, codes.ABSENT, codes.PRECONDITION, codes.UNDER_WAY, codes.SERVER, codes.ACCESS)

    names = [name for group in groups for name in group]

    assert len(names) == len(set(names))


def test_a_stale_credential_is_a_matter_of_access_too() -> None:
    assert codes.STALE_CREDENTIALS <= codes.ACCESS


def test_every_throttle_that_the_sdk_retries_is_a_throttle_to_us() -> None:
    from botocore.retries.standard import ThrottledRetryableChecker

    theirs = set(ThrottledRetryableChecker._THROTTLED_ERROR_CODES)  # type: ignore[attr-defined]

    assert theirs - codes.THROTTLES - codes.UNDER_WAY == {"LimitExceededException"}  # a quota of control-plane calls
