"""Nobody enters without a signature, and a role can do what its policy says and nothing else."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError

from spotrelay.localcloud.client import CloudFailed, LocalCloud
from tests.localcloud.kit import allow, as_role, role, table

pytestmark = pytest.mark.loop


def refusal(call: object, **arguments: object) -> str:
    with pytest.raises(ClientError) as refused:
        call(**arguments)  # type: ignore[operator]
    return str(refused.value.response["Error"]["Code"])


def test_a_role_may_touch_its_own_prefix_of_a_bucket_and_no_other(cloud: LocalCloud, name: str) -> None:
    cloud.client("s3").create_bucket(Bucket=name)
    arn = role(cloud, name, "ec2.amazonaws.com", allow("s3:PutObject", on=f"arn:aws:s3:::{name}/runs/*"))
    s3 = cloud.client("s3", **as_role(cloud, arn))

    s3.put_object(Bucket=name, Key="runs/a", Body=b"1")

    assert refusal(s3.put_object, Bucket=name, Key="code/a", Body=b"1") == "AccessDenied"
    assert refusal(s3.get_object, Bucket=name, Key="runs/a") == "AccessDenied"
    assert refusal(s3.delete_object, Bucket=name, Key="runs/a") == "AccessDenied"


def test_a_bucket_that_demands_tls_serves_the_loopback(cloud: LocalCloud, name: str) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=name)
    only_tls = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:*",'
        f'"Resource":"arn:aws:s3:::{name}/*","Condition":{{"Bool":{{"aws:SecureTransport":"false"}}}}}}]}}'
    )
    s3.put_bucket_policy(Bucket=name, Policy=only_tls)
    arn = role(cloud, name, "ec2.amazonaws.com", allow("s3:PutObject", on=f"arn:aws:s3:::{name}/*"))

    cloud.client("s3", **as_role(cloud, arn)).put_object(Bucket=name, Key="a", Body=b"1")


def test_leading_keys_of_a_table_are_enforced_in_items_queries_and_transactions(cloud: LocalCloud, name: str) -> None:
    table(cloud, name)
    own = {
        "ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["LIVE#*"]},
        "Null": {"dynamodb:LeadingKeys": "false"},
    }
    arn = f"arn:aws:dynamodb:us-east-1:000000000000:table/{name}"
    rights = allow("dynamodb:PutItem", "dynamodb:Query", "dynamodb:Scan", on=arn, when=own)
    dynamodb = cloud.client("dynamodb", **as_role(cloud, role(cloud, name, "ec2.amazonaws.com", rights)))
    live, row = ({"pk": {"S": key}, "sk": {"S": "x"}} for key in ("LIVE#r", "RUN#r"))
    query = {"TableName": name, "KeyConditionExpression": "pk = :p"}

    dynamodb.put_item(TableName=name, Item=live)
    dynamodb.query(**query, ExpressionAttributeValues={":p": {"S": "LIVE#r"}})
    dynamodb.transact_write_items(TransactItems=[{"Put": {"TableName": name, "Item": live}}])

    assert refusal(dynamodb.put_item, TableName=name, Item=row) == "AccessDeniedException"
    assert refusal(dynamodb.query, **query, ExpressionAttributeValues={":p": {"S": "RUN#r"}}) == "AccessDeniedException"
    assert refusal(dynamodb.scan, TableName=name) == "AccessDeniedException"
    both = [{"Put": {"TableName": name, "Item": item}} for item in (live, row)]
    assert refusal(dynamodb.transact_write_items, TransactItems=both) == "AccessDeniedException"


def test_the_right_to_send_covers_sending_a_batch_and_nothing_else(cloud: LocalCloud, name: str) -> None:
    url = cloud.client("sqs").create_queue(QueueName=name)["QueueUrl"]
    rights = allow("sqs:SendMessage", on=f"arn:aws:sqs:us-east-1:000000000000:{name}")
    sqs = cloud.client("sqs", **as_role(cloud, role(cloud, name, "lambda.amazonaws.com", rights)))

    sent = sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": "x"}])

    assert len(sent["Successful"]) == 1
    assert refusal(sqs.receive_message, QueueUrl=url) == "AccessDenied"


def test_the_source_of_published_events_is_enforced(cloud: LocalCloud, name: str) -> None:
    rights = allow("events:PutEvents", when={"StringEquals": {"events:source": ["spotrelay"]}})
    events = cloud.client("events", **as_role(cloud, role(cloud, name, "ec2.amazonaws.com", rights)))

    def entry(source: str) -> dict[str, str]:
        return {"Source": source, "DetailType": "t", "Detail": "{}"}

    assert events.put_events(Entries=[entry("spotrelay")])["FailedEntryCount"] == 0
    assert refusal(events.put_events, Entries=[entry("other")]) == "AccessDeniedException"
    assert refusal(events.put_events, Entries=[entry("spotrelay"), entry("other")]) == "AccessDeniedException"


@pytest.mark.parametrize("key", ["test", "000000000000", "AKIAUNKNOWN000000000"])
@pytest.mark.parametrize("service", ["s3", "ec2", "dynamodb"])
def test_a_key_that_was_never_given_out_opens_nothing(cloud: LocalCloud, service: str, key: str) -> None:
    stranger = cloud.client(service, aws_access_key_id=key, aws_secret_access_key="test")
    call = {"s3": "list_buckets", "ec2": "describe_instances", "dynamodb": "list_tables"}[service]

    code = refusal(getattr(stranger, call))

    assert code in ("UnrecognizedClientException", "InvalidAccessKeyId", "AuthFailure")


@pytest.mark.parametrize(
    ("service", "call"), [("s3", "list_buckets"), ("ec2", "describe_instances"), ("dynamodb", "list_tables")]
)
def test_the_administrators_key_with_a_wrong_secret_opens_nothing(cloud: LocalCloud, service: str, call: str) -> None:
    forger = cloud.client(service, aws_secret_access_key="wrong")

    assert refusal(getattr(forger, call)) in ("SignatureDoesNotMatch", "AuthFailure")


@pytest.mark.parametrize(
    "path", ["/bucket/key", "/_ministack/reset", "/_ministack/health", "/latest/meta-data/iam/security-credentials/"]
)
def test_unsigned_requests_and_administration_paths_are_refused(cloud: LocalCloud, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(cloud.endpoint + path)

    assert refused.value.code == 403


def test_a_signed_request_does_not_reach_administration_paths_either(cloud: LocalCloud) -> None:
    bucket = cloud.client("s3")

    assert refusal(bucket.get_object, Bucket="_ministack", Key="health") == "AccessDenied"


def test_control_needs_the_token(cloud: LocalCloud) -> None:
    request = urllib.request.Request(cloud.endpoint + "/_spotrelay/control/instances", data=b"{}")

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)

    assert refused.value.code == 403


def test_an_unknown_control_method_is_named_in_the_error(cloud: LocalCloud) -> None:
    with pytest.raises(CloudFailed, match="explode"):
        cloud.call("explode")


def test_nothing_of_the_administrators_secret_is_in_the_request_log(cloud: LocalCloud) -> None:
    cloud.client("s3").list_buckets()

    log = (cloud.home / "requests.jsonl").read_text()

    assert cloud.environment()["AWS_SECRET_ACCESS_KEY"] not in log


def test_the_log_names_caller_action_target_and_outcome(cloud: LocalCloud, name: str) -> None:
    cloud.client("s3").create_bucket(Bucket=name)
    s3 = cloud.client("s3", **as_role(cloud, role(cloud, name, "ec2.amazonaws.com")))
    refusal(s3.put_object, Bucket=name, Key="runs/a", Body=b"12345")

    entry = next(e for e in cloud.requests() if e["target"] == f"{name}/runs/a")

    assert entry["caller"].endswith(f"assumed-role/{name}/test")
    assert (entry["service"], entry["action"]) == ("s3", "PutObject")
    assert (entry["status"], entry["error"]) == (403, "AccessDenied")
    assert entry["bytes"] >= 5
    assert entry["instance_id"] is None
