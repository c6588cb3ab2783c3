"""Where instances live: public subnets without a NAT, nobody let in, S3 and DynamoDB on private paths."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network

from aws_cdk import CfnTag, Fn, RemovalPolicy, Stack, Tags, aws_ec2, aws_iam, aws_logs
from constructs import Construct

from infra.config import Network
from infra.constructs.acknowledge import acknowledge

SUBNET_BITS = 20  # at most six subnets of 4,094 addresses in a /16
GATEWAYS = ("s3", "dynamodb")


class Ground(Construct):
    """A VPC, made here or the user's, with one subnet per zone and a security group without a way in from outside.

    Attributes:
        subnets: zone name (a token for zones of our own) and subnet id, in order.
        security_group: id.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        stack_name: str,
        cidr: IPv4Network,
        zones: int,
        given: Network | None,
        flow_logs: bool,
    ) -> None:
        super().__init__(scope, name)
        self.subnets: list[tuple[str, str]]
        if given is not None:
            vpc = given.id
            self.subnets = sorted(given.subnets.items())
            self._gateways(vpc, given.route_tables)
        else:
            vpc = self._own_vpc(cidr, zones, flow_logs)
        self.security_group = self._closed_group(vpc)
        Tags.of(self).add("Name", f"{stack_name} instances")

    def _own_vpc(self, cidr: IPv4Network, zones: int, flow_logs: bool) -> str:
        vpc = aws_ec2.CfnVPC(self, "Vpc", cidr_block=str(cidr), enable_dns_hostnames=True, enable_dns_support=True)
        routes = self._route_out(vpc.ref)
        self.subnets = [
            self._subnet(vpc.ref, routes.ref, index, str(block))
            for index, block in zip(
                range(zones), cidr.subnets(new_prefix=max(SUBNET_BITS, cidr.prefixlen + 3)), strict=False
            )
        ]
        self._gateways(vpc.ref, [routes.ref])
        if flow_logs:
            self._log_refused_traffic(vpc.ref)
        else:
            acknowledge(vpc, "Nobody may connect in; flow logs are a choice of the context (flow_logs).", "VPC7")
        return vpc.ref

    def _route_out(self, vpc: str) -> aws_ec2.CfnRouteTable:
        gateway = aws_ec2.CfnInternetGateway(self, "Gateway")
        attachment = aws_ec2.CfnVPCGatewayAttachment(self, "Attachment", vpc_id=vpc, internet_gateway_id=gateway.ref)
        table = aws_ec2.CfnRouteTable(self, "Routes", vpc_id=vpc)
        route = aws_ec2.CfnRoute(
            self, "Out", route_table_id=table.ref, destination_cidr_block="0.0.0.0/0", gateway_id=gateway.ref
        )
        route.add_resource_dependency(attachment)
        return table

    def _subnet(self, vpc: str, routes: str, index: int, cidr: str) -> tuple[str, str]:
        zone = Fn.select(index, Fn.get_azs())
        subnet = aws_ec2.CfnSubnet(
            self,
            f"Subnet{index + 1}",
            vpc_id=vpc,
            availability_zone=zone,
            cidr_block=cidr,
            map_public_ip_on_launch=True,
        )
        aws_ec2.CfnSubnetRouteTableAssociation(
            self, f"Subnet{index + 1}Routes", subnet_id=subnet.ref, route_table_id=routes
        )
        return zone, subnet.ref

    def _gateways(self, vpc: str, route_tables: Sequence[str]) -> None:
        """Checkpoints go to S3 without passing the internet, and without a charge for it."""
        if not route_tables:
            return
        for service in GATEWAYS:
            aws_ec2.CfnVPCEndpoint(
                self,
                f"{service.capitalize()}Gateway",
                vpc_id=vpc,
                vpc_endpoint_type="Gateway",
                service_name=f"com.amazonaws.{Stack.of(self).region}.{service}",
                route_table_ids=list(route_tables),
            )

    def _closed_group(self, vpc: str) -> str:
        group = aws_ec2.CfnSecurityGroup(
            self,
            "Closed",
            vpc_id=vpc,
            group_description="Spotrelay instances: in from each other only, everything out",
            security_group_egress=[
                aws_ec2.CfnSecurityGroup.EgressProperty(
                    ip_protocol="-1", cidr_ip="0.0.0.0/0", description="packages, data sets and AWS itself"
                )
            ],
            tags=[CfnTag(key="spotrelay:inbound", value="each-other")],
        )
        # NCCL takes any port, and EFA has none: what a gang's machines say to each other is not narrowed further.
        aws_ec2.CfnSecurityGroupIngress(
            self,
            "EachOther",
            group_id=group.attr_group_id,
            source_security_group_id=group.attr_group_id,
            ip_protocol="-1",
            description="machines of one attempt",
        )
        return group.attr_group_id

    def _log_refused_traffic(self, vpc: str) -> None:
        log = aws_logs.LogGroup(
            self, "FlowLog", retention=aws_logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY
        )
        role = aws_iam.Role(self, "FlowLogRole", assumed_by=aws_iam.ServicePrincipal("vpc-flow-logs.amazonaws.com"))
        role.add_to_policy(
            aws_iam.PolicyStatement(
                actions=["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
                resources=[log.log_group_arn],
            )
        )
        aws_ec2.CfnFlowLog(
            self,
            "RefusedTraffic",
            resource_id=vpc,
            resource_type="VPC",
            traffic_type="REJECT",
            log_destination_type="cloud-watch-logs",
            log_group_name=log.log_group_name,
            deliver_logs_permission_arn=role.role_arn,
        )
