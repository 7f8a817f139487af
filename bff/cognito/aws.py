"""AWS clients, and what goes wrong with AWS in sentences: no stack trace is an answer to a wrong profile."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

DEADLINE = {"connect_timeout": 5, "read_timeout": 20, "retries": {"max_attempts": 2, "mode": "standard"}}
"""A command that somebody waits for; the times are in seconds."""


class AwsRefused(Exception):
    """What was asked of AWS cannot be had; the text says why and what to do, in one sentence for a person."""


@dataclass(frozen=True)
class Account:
    """Where to ask: a named profile and a region of the AWS configuration, or what it has by itself."""

    profile: str | None = None
    region: str | None = None

    def client(self, service: str) -> Any:
        """A client of boto3. Raises `AwsRefused` without boto3, the profile or a region."""
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise AwsRefused(
                "this command speaks to AWS through boto3, which is not installed. Install the extra "
                f"`cognito`, or boto3 alone: {sys.executable} -m pip install 'boto3>=1.40,<2'"
            ) from None
        # The AWS CLI and the other SDKs take AWS_REGION; boto3 has another name for it.
        region = self.region or os.environ.get("AWS_REGION")
        with in_sentences():
            session = boto3.Session(profile_name=self.profile, region_name=region)
            return session.client(service, config=Config(**DEADLINE))


@contextmanager
def in_sentences() -> Iterator[None]:
    """Turn what boto3 raises into `AwsRefused`. Its texts are not all fit for that: some quote parameters."""
    from botocore import exceptions as failures

    try:
        yield
    except failures.ClientError as refused:
        raise AwsRefused(_refusal(refused)) from None
    except failures.ProfileNotFound:
        raise AwsRefused("the AWS configuration has no profile of this name: see --profile") from None
    except failures.NoRegionError:
        raise AwsRefused("no AWS region is set: give --region, or set AWS_REGION") from None
    except _no_credentials() as failed:
        raise AwsRefused(
            f"there are no usable AWS credentials ({type(failed).__name__}): sign in with `aws sso login` or "
            "`aws configure`, or name a profile with --profile"
        ) from None
    except (failures.HTTPClientError, failures.ConnectionError) as failed:
        raise AwsRefused(
            f"AWS cannot be reached ({type(failed).__name__}): check region, network and proxy"
        ) from None
    except failures.BotoCoreError as failed:
        raise AwsRefused(f"the request cannot be made ({type(failed).__name__}): check the options") from None


def _no_credentials() -> tuple[type[Exception], ...]:
    from botocore import exceptions as failures

    return (
        failures.NoCredentialsError,
        failures.PartialCredentialsError,
        failures.CredentialRetrievalError,
        failures.TokenRetrievalError,
        failures.SSOError,
    )


def _refusal(refused: Any) -> str:
    """AWS's own code and text, fit for one line of a terminal."""
    error = refused.response.get("Error", {})
    code, operation = str(error.get("Code", "no code")), refused.operation_name
    if code.startswith("AccessDenied") or code == "UnauthorizedOperation":
        return f"these AWS credentials may not call {operation}: allow it in their policy"
    text = "".join(char if char.isprintable() else " " for char in str(error.get("Message", "")))
    return f"AWS answers {code} to {operation}: {text[:300]}"
