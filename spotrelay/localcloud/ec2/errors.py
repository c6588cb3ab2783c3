"""EC2's error codes as this emulation answers them: the HTTP status of each, and where it is documented."""

from __future__ import annotations

from dataclasses import dataclass

_API = "EC2 API Reference, Error codes for the Amazon EC2 API"
_COMMON = "EC2 API Reference, Error codes, common client errors"
_SERVER = "EC2 API Reference, Error codes, server error codes"
_FLEET = "EC2 User Guide, EC2 Fleet: fulfilment errors of an instant fleet"
_KARPENTER = "aws/karpenter-provider-aws, pkg/errors/errors.go"


@dataclass(frozen=True)
class Documented:
    """How a code is answered."""

    status: int
    source: str


CODES: dict[str, Documented] = {
    "DryRunOperation": Documented(412, _COMMON),
    "UnauthorizedOperation": Documented(403, _COMMON),
    "IdempotentParameterMismatch": Documented(400, _API),
    "InvalidAction": Documented(400, _COMMON),
    "InvalidParameterCombination": Documented(400, _COMMON),
    "InvalidParameterValue": Documented(400, _COMMON),
    "InvalidClientToken": Documented(400, _API),
    "MissingParameter": Documented(400, _COMMON),
    "UnknownParameter": Documented(400, _COMMON),
    "FilterLimitExceeded": Documented(400, _API),
    "InvalidPaginationToken": Documented(400, _API),
    "InvalidID": Documented(400, _API),
    "InvalidInstanceID.Malformed": Documented(400, _API),
    "InvalidInstanceID.NotFound": Documented(400, _API),
    "InvalidInstanceType": Documented(400, _API),
    "InvalidFleetId.NotFound": Documented(400, _API),
    "InvalidSpotInstanceRequestID.NotFound": Documented(400, _API),
    "InvalidLaunchTemplateId.NotFound": Documented(400, _API),
    "InvalidLaunchTemplateId.VersionNotFound": Documented(400, _API),
    "InvalidLaunchTemplateName.NotFoundException": Documented(400, _KARPENTER),
    "InvalidSubnetID.NotFound": Documented(400, _API),
    "InvalidCapacityReservationId.NotFound": Documented(400, _API),
    "InvalidUserData.Malformed": Documented(400, _API),
    "InvalidFleetConfiguration": Documented(400, _KARPENTER),
    "TagLimitExceeded": Documented(400, _API),
    "UnsupportedOperation": Documented(400, _API),
    "Unsupported": Documented(400, _API),
    "SpotMaxPriceTooLow": Documented(400, _API),
    "MaxSpotInstanceCountExceeded": Documented(400, _API),
    "VcpuLimitExceeded": Documented(400, _API),
    "InstanceLimitExceeded": Documented(400, _API),
    "MaxFleetCountExceeded": Documented(400, _KARPENTER),
    "InsufficientFreeAddressesInSubnet": Documented(400, _API),
    "ReservationCapacityExceeded": Documented(400, _KARPENTER),
    "UnfulfillableCapacity": Documented(400, _FLEET),
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": Documented(403, _KARPENTER),
    "InsufficientInstanceCapacity": Documented(500, _SERVER),
    "InternalError": Documented(500, _SERVER),
    "RequestLimitExceeded": Documented(503, _COMMON),
    "ServiceUnavailable": Documented(503, _SERVER),
    "Unavailable": Documented(503, _SERVER),
}
_UNDOCUMENTED_STATUS = 400


class Ec2Error(Exception):
    """A request is answered with this error; nothing else came of it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """HTTP status; 400 for a code that only a test has asked for."""
        known = CODES.get(self.code)
        return known.status if known else _UNDOCUMENTED_STATUS


def invalid_value(value: object, parameter: str, hint: str = "") -> Ec2Error:
    """The error for a parameter that EC2 knows, with a value that it does not take."""
    return Ec2Error("InvalidParameterValue", f"Invalid value '{value}' for {parameter}.{' ' if hint else ''}{hint}")
