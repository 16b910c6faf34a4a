"""Credentials from where people keep them, and the settings of a service's client."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from shardfit.errors import InvalidArgumentError
from shardfit.redaction import redact_options, redact_url

OWN_OPTIONS = {"patience_s": 120.0, "life_s": 900.0, "lease_s": 120.0}
"""Options that the store itself takes, in seconds: how long it tries, how long a sign of life holds, and a lock."""

_SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")
_SILENCE_S = 300.0
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3")
_AWS_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


class HiddenOptions(dict[str, Any]):
    """Options of which nobody sees the secrets by printing them."""

    def __repr__(self) -> str:
        return repr(redact_options(self))


def check_url(url: str) -> str:
    """Return the URL of an object store, without a slash at its end.

    Raises:
        InvalidArgumentError: Its scheme is not known, it names no bucket, or a secret stands in it.
    """
    asked, parts = f"opening the stage {redact_url(url)!r}", urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise InvalidArgumentError(asked, f"found the scheme {parts.scheme!r}", "Use s3://, gs://, az:// or file://.")
    user = parts.username if not parts.scheme.startswith("abfs") else None
    if user is not None or parts.password is not None or parts.query or parts.fragment:
        advice = "Leave credentials to the environment or the catalogue's options: addresses are shown to people."
        raise InvalidArgumentError(asked, "found more than a bucket and a path", advice)
    if not parts.netloc:
        raise InvalidArgumentError(asked, "it names no bucket", "Write s3://bucket/path.")
    if ".." in unquote(parts.path).split("/"):
        raise InvalidArgumentError(asked, "found '..' in its path", "Write the path without it.")
    return url.rstrip("/")


def own_options(options: Mapping[str, Any]) -> dict[str, float]:
    """Return the store's own options, each from `options` or by default.

    Raises:
        InvalidArgumentError: One is no positive number.
    """
    own = {name: options.get(name, default) for name, default in OWN_OPTIONS.items()}
    for name, value in own.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InvalidArgumentError(f"opening a stage with {name}={value!r}", "it is no positive number of seconds")
    return {name: float(value) for name, value in own.items()}


def client_settings(
    url: str, options: Mapping[str, Any], environ: Mapping[str, str], patience_s: float, request_s: float
) -> dict[str, Any]:
    """Return the arguments of `obstore.store.from_url`.

    Args:
        url: Of the store.
        options: The user's; go first.
        environ: Environment variables; obstore reads those of each service by itself.
        patience_s: How long one request is tried again after a failure.
        request_s: How long one may take; it fails earlier where nothing is heard of the service.
    """
    config = {key: value for key, value in options.items() if key not in OWN_OPTIONS}
    if url.startswith("s3"):
        config = {**_aws_profile(config, environ), **config}
    # A service account may name another server than Google's.
    endpoints = [str(value) for key, value in config.items() if re.search("endpoint|service_account_key", key, re.I)]
    endpoints += [environ[name] for name in _ENDPOINTS if name in environ]
    client: dict[str, Any] = {
        "timeout": timedelta(seconds=request_s),
        # Services put the parts of a large object together before they answer.
        "read_timeout": timedelta(seconds=min(request_s, _SILENCE_S)),
        "connect_timeout": timedelta(seconds=10),
    }
    if any("http://" in endpoint for endpoint in endpoints):
        client["allow_http"] = True
    retry = {
        "max_retries": 8,
        "retry_timeout": timedelta(seconds=patience_s),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
    }
    return {"config": config, "client_options": client, "retry_config": retry}


def _aws_profile(config: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    given = {key.lower().removeprefix("aws_") for key in config}
    if "access_key_id" in given or "skip_signature" in given or "AWS_ACCESS_KEY_ID" in environ:
        return {}
    home = Path(environ.get("HOME", "~")).expanduser()
    path = Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials")
    parser = configparser.RawConfigParser()
    if not path.is_file() or not parser.read(path, encoding="utf-8"):
        return {}
    profile = environ.get("AWS_PROFILE", "default")
    return {key: parser[profile][key] for key in _AWS_KEYS if profile in parser and key in parser[profile]}
