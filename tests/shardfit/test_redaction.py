"""No secret reaches people; what is no secret stays readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.redaction import redact, redact_options, redact_url

CANARY = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:hunter2@bucket/path",
        "reading 's3://hunter2@bucket/path', row group 3",
        "https://host/x?X-Amz-Signature=hunter2&region=eu",
        "https://a/?token=hunter2 and https://b/?sig=hunter2",
        "password=hunter2",
        "Password: hunter2, user: me",
        "{'aws_secret_access_key': 'hunter2', 'region': 'eu'}",
        '{"token": "hunter2"}',
        "Authorization: Bearer hunter2",
        "AccountName=me;AccountKey=hunter2==;EndpointSuffix=x",
        "AWS_SESSION_TOKEN=hunter2",
    ],
)
def test_secrets_go_from_messages(text: str) -> None:
    assert CANARY not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "reading '/data/keyboard.parquet', row group 3: found 12 tokens",
        "s3://bucket/path/part-0.parquet?region=eu-west-1",
        "abfss://container@account.dfs.core.windows.net/path",
        "the secret is out",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(
    st.text(alphabet="abcXYZ019", min_size=6, max_size=20), st.sampled_from(["token", "secret_key", "password", "sas"])
)
def test_options_with_secret_names_go_at_any_depth(secret: str, name: str) -> None:
    secret = f"canary{secret}"
    options = {"region": "eu", "deep": {"er": [{name: secret}]}, name: secret, "url": f"s3://u:{secret}@bucket"}
    redacted = redact_options(options)
    assert secret not in repr(redacted)
    assert redacted["region"] == "eu"


@given(st.text())
def test_any_text_can_be_redacted_and_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact_url(redact_url(text)) == redact_url(text)
    assert redact(redact(text)) == redact(text)
