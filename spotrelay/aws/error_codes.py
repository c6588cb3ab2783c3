"""AWS error codes and what each one means to us. The one place; never compare a message's text."""

from __future__ import annotations

from spotrelay.core.placement import FailureScope

_S = FailureScope

# Sources: [API] EC2 API Reference, "Error codes for the Amazon EC2 API"; [KARP] karpenter-provider-aws,
# pkg/errors/errors.go, the unfulfillable set; [UG] EC2 User Guide, "Troubleshoot instance launch issues".
LAUNCH_SCOPES: dict[str, FailureScope] = {
    # the pool: this type in this zone has nothing at present
    "InsufficientInstanceCapacity": _S.POOL,  # [API], a 5xx; spread placement groups answer it too
    "InsufficientCapacity": _S.POOL,  # [API]
    "InsufficientHostCapacity": _S.POOL,  # [API]
    "InsufficientReservedInstanceCapacity": _S.POOL,  # [API]
    "InsufficientCapacityOnOutpost": _S.POOL,  # [API]
    "UnfulfillableCapacity": _S.POOL,  # [KARP]
    "ReservationCapacityExceeded": _S.POOL,  # [KARP]
    "SpotMaxPriceTooLow": _S.POOL,  # [API]
    "Unsupported": _S.POOL,  # [API]: the type is not offered in the zone
    "UnsupportedOperation": _S.POOL,  # [API]: the type cannot do what the template asks for
    # the zone: our one subnet there, or its volumes
    "InsufficientFreeAddressesInSubnet": _S.ZONE,  # [API]; stopped instances hold addresses as well
    "InsufficientVolumeCapacity": _S.ZONE,  # [API]
    # a quota of the region, by family and market
    "MaxSpotInstanceCountExceeded": _S.QUOTA,  # [API], [KARP]
    "SpotInstanceCountExceeded": _S.QUOTA,  # [API]
    "VcpuLimitExceeded": _S.QUOTA,  # [KARP]; 0 is the default quota of GPU families
    "InstanceLimitExceeded": _S.QUOTA,  # [API]; also for a moment after terminating
    # the account as a whole
    "MaxFleetCountExceeded": _S.ACCOUNT,  # [KARP]
    "MaxSpotFleetRequestCountExceeded": _S.ACCOUNT,  # [API]
    "VolumeLimitExceeded": _S.ACCOUNT,  # [API]
    "MaxIOPSLimitExceeded": _S.ACCOUNT,  # [API]
    "NetworkInterfaceLimitExceeded": _S.ACCOUNT,  # [API]
    "InsufficientAddressCapacity": _S.ACCOUNT,  # [API]
    "Blocked": _S.ACCOUNT,  # [API]
    "PendingVerification": _S.ACCOUNT,  # [API]: the account is being checked, up to two hours
    # request rate
    "RequestLimitExceeded": _S.THROTTLE,  # [API]
    "Throttling": _S.THROTTLE,  # [API], common errors
    "ThrottlingException": _S.THROTTLE,  # [API], common errors
    "ThrottledException": _S.THROTTLE,
    "RequestThrottled": _S.THROTTLE,
    "RequestThrottledException": _S.THROTTLE,
    "TooManyRequestsException": _S.THROTTLE,
    "EC2ThrottledException": _S.THROTTLE,  # as botocore's retry tables list it
    "BandwidthLimitExceeded": _S.THROTTLE,
    # EC2 itself
    "InternalError": _S.SERVER,  # [API]
    "InternalFailure": _S.SERVER,  # [API]
    "Unavailable": _S.SERVER,  # [API]
    "ServiceUnavailable": _S.SERVER,  # [API]
    "RequestTimeout": _S.SERVER,
    # what a person has to mend
    "UnauthorizedOperation": _S.CONFIGURATION,  # [API]
    "AccessDenied": _S.CONFIGURATION,  # [API], common errors
    "AuthFailure": _S.CONFIGURATION,  # [API]; also for an image that was not shared with us
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": _S.CONFIGURATION,  # [KARP]
    "OptInRequired": _S.CONFIGURATION,  # [API]
    "DryRunOperation": _S.CONFIGURATION,  # [API]: a dry run that would have passed
    "HttpTokensEnforced": _S.CONFIGURATION,  # [UG]: the account demands IMDSv2, the template does not
    "IdempotentParameterMismatch": _S.CONFIGURATION,  # [API]: the token was used with another request
    "InvalidFleetConfiguration": _S.CONFIGURATION,  # [API]; beside one override it is about that pool, see below
    "MissingParameter": _S.CONFIGURATION,  # [API]
    "MissingAction": _S.CONFIGURATION,
    "UnknownParameter": _S.CONFIGURATION,  # [API]
    "UnsupportedInstanceAttribute": _S.CONFIGURATION,  # [API]
    "TagLimitExceeded": _S.CONFIGURATION,  # [API]
    "TagPolicyViolation": _S.CONFIGURATION,
    "NonEBSInstance": _S.CONFIGURATION,  # [API]
    "VPCIdNotSpecified": _S.CONFIGURATION,  # [API]
    "DefaultVpcDoesNotExist": _S.CONFIGURATION,
}  # fmt: skip

# Families of codes that name what is wrong after the prefix: InvalidParameterValue, InvalidSubnetID.NotFound,
# InvalidUserData.Malformed, InvalidLaunchTemplateId.VersionNotFound … [API]
LAUNCH_PREFIXES: tuple[tuple[str, FailureScope], ...] = (
    ("InvalidCapacityReservation", _S.POOL),  # released, or its time is over: the other pools are there all the same
    ("Invalid", _S.CONFIGURATION),
    ("AuthFailure.", _S.CONFIGURATION),
    ("Malformed", _S.CONFIGURATION),
)

# In an instant fleet's Errors[] this code speaks about the override beside it, mostly a type that the
# zone does not offer, while other overrides do start machines. Source: hashicorp/packer, pull request 9946.
OVERRIDE_SCOPES: dict[str, FailureScope] = {"InvalidFleetConfiguration": _S.POOL}

# Nothing was done, and the same request will do later. Sources: botocore's standard retry tables; DynamoDB
# Developer Guide, "Error handling"; S3 User Guide, "Conditional writes" for the two 409s.
THROTTLES = frozenset(code for code, scope in LAUNCH_SCOPES.items() if scope is _S.THROTTLE) | {
    "ProvisionedThroughputExceededException",
    "ProvisionedThroughputExceeded",  # as a reason of a cancelled transaction
    "ThrottlingError",  # as a reason of a cancelled transaction
    "TransactionConflict",  # as a reason of a cancelled transaction
    "TransactionConflictException",
    "ReplicatedWriteConflictException",
    "PriorRequestNotComplete",
    "SlowDown",
    "ConditionalRequestConflict",
    "OperationAborted",
}

# The caller is not let in. Credentials may be renewed and rights granted, so it is never a no. Sources:
# common errors of the AWS APIs; S3 and DynamoDB error lists. Numbers: a HEAD answer has no body.
ACCESS = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AllAccessDisabled",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "Forbidden",
        "403",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "NotSignedUp",
        "OptInRequired",
        "RequestExpired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)

# Of these, the ones that pass when fresh credentials or a right clock arrive: no launch is refused by them.
STALE_CREDENTIALS = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "RequestTimeTooSkewed", "TokenRefreshRequired"}
    | {"InvalidClientTokenId", "UnrecognizedClientException", "InvalidSignatureException", "SignatureDoesNotMatch"}
)

# What was asked for is not there.
ABSENT = frozenset(
    {
        "404",
        "405",  # HEAD of a delete marker by its version
        "MethodNotAllowed",  # GET of a delete marker by its version
        "NotFound",
        "NoSuchBucket",
        "NoSuchKey",
        "NoSuchVersion",
        "ParameterNotFound",
        "ParameterVersionNotFound",
        "ResourceNotFoundException",
        "TableNotFoundException",
    }
)

# A create-only or conditional write met what it forbids.
PRECONDITION = frozenset({"ConditionalCheckFailed", "ConditionalCheckFailedException", "PreconditionFailed", "412"})

# Our own earlier try of the same transaction is still under way: its outcome is not known yet.
UNDER_WAY = frozenset({"TransactionInProgressException"})

# The service's own trouble, whatever its HTTP status.
SERVER = frozenset(code for code, scope in LAUNCH_SCOPES.items() if scope is _S.SERVER) | {
    "InternalServerError",
    "RequestTimeoutException",
}


def bare(code: str) -> str:
    """The code without the `Server.` or `Client.` that CloudTrail and state reasons put before it."""
    for prefix in ("Server.", "Client."):
        code = code.removeprefix(prefix)
    return code


def scope_of(code: str) -> FailureScope:
    """How far a refused launch reaches."""
    name = bare(code)
    if name in LAUNCH_SCOPES:
        return LAUNCH_SCOPES[name]
    return next((scope for prefix, scope in LAUNCH_PREFIXES if name.startswith(prefix)), FailureScope.UNKNOWN)


def override_scope_of(code: str) -> FailureScope:
    """The same for a code that a fleet's answer gives beside one override."""
    return OVERRIDE_SCOPES.get(bare(code), scope_of(code))
