from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from spotrelay.core.errors import InvalidInput, Missing, Unavailable
from spotrelay.instance.aws_secrets import AwsSecrets
from spotrelay.instance.secrets import resolve
from tests.instance.attempts import MemorySecrets


def test_each_variable_gets_the_value_that_its_reference_names() -> None:
    source = MemorySecrets({"ssm:/wandb/key": "abc", "secretsmanager:hf-token": "d'e\n$(f)"})

    values = resolve({"WANDB_API_KEY": "ssm:/wandb/key", "HF_TOKEN": "secretsmanager:hf-token"}, source)

    assert values == {"WANDB_API_KEY": "abc", "HF_TOKEN": "d'e\n$(f)"}


def test_a_reference_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidInput, match="HF_TOKEN"):
        resolve({"HF_TOKEN": "vault:token"}, MemorySecrets())


def test_a_value_that_no_variable_can_hold_is_refused_without_showing_it() -> None:
    with pytest.raises(InvalidInput) as error:
        resolve({"KEY": "ssm:/key"}, MemorySecrets({"ssm:/key": "top\0secret"}))

    assert "secret value" not in str(error.value)
    assert "top" not in str(error.value)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        make: Any = boto3.Session(region_name="us-east-1").client
        yield make


def test_parameters_are_decrypted(aws: Any) -> None:
    aws("ssm").put_parameter(Name="/wandb/key", Value="abc", Type="SecureString")

    assert AwsSecrets(aws).parameter("/wandb/key") == "abc"


def test_secrets_are_read_as_text(aws: Any) -> None:
    aws("secretsmanager").create_secret(Name="hf-token", SecretString="def")
    aws("secretsmanager").create_secret(Name="bytes", SecretBinary=b"\x00")

    assert AwsSecrets(aws).secret("hf-token") == "def"
    with pytest.raises(InvalidInput, match="bytes"):
        AwsSecrets(aws).secret("bytes")


def test_what_is_not_there_is_named(aws: Any) -> None:
    with pytest.raises(Missing, match="ssm:/none"):
        AwsSecrets(aws).parameter("/none")
    with pytest.raises(Missing, match="secretsmanager:none"):
        AwsSecrets(aws).secret("none")


@pytest.mark.parametrize(
    ("code", "kind"),
    [("AccessDeniedException", InvalidInput), ("ExpiredTokenException", Unavailable), ("InternalError", Unavailable)],
)
def test_a_missing_right_is_final_and_stale_credentials_are_not(code: str, kind: type[Exception]) -> None:
    class Refusing:
        def get_parameter(self, **_: Any) -> None:
            raise ClientError({"Error": {"Code": code, "Message": ""}}, "GetParameter")

    with pytest.raises(kind, match="ssm:/key"):
        AwsSecrets(lambda _: Refusing()).parameter("/key")
