"""What can go wrong between us and S3, in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions as boto_errors
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from wine_api.errors import ModelStoreUnavailable, ModelVersionNotFound, WineError
from wine_api.serving.stores.transfer import replaced

# The connection broke off in the middle of an answer.
BROKEN_OFF = (
    boto_errors.ReadTimeoutError,
    boto_errors.ResponseStreamingError,
    boto_errors.IncompleteReadError,
    HTTPError,
)

_NO_CREDENTIALS = (
    boto_errors.NoCredentialsError,
    boto_errors.PartialCredentialsError,
    boto_errors.CredentialRetrievalError,
    boto_errors.TokenRetrievalError,
    boto_errors.NoAuthTokenError,
    boto_errors.SSOError,
)
_TIMEOUT = (boto_errors.ConnectTimeoutError, boto_errors.ReadTimeoutError, TimeoutError)
_UNREACHABLE = (boto_errors.ConnectionError, boto_errors.HTTPClientError)
_TRUNCATED = "The answer of S3 broke off."
_BAD_TOKEN = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestExpired")

# The first kind that fits counts.
_FAILURES: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
    (_NO_CREDENTIALS, "no_credentials", "No AWS credentials were found."),
    (_TIMEOUT, "timeout", "S3 did not answer in time."),
    ((boto_errors.SSLError,), "tls_error", "No secure connection to S3 can be made."),
    (BROKEN_OFF, "truncated", _TRUNCATED),
    ((boto_errors.FlexibleChecksumError,), "corrupted", "What S3 sent does not have the checksum that S3 names."),
    (_UNREACHABLE, "unreachable", "S3 cannot be reached."),
    # The login page of somebody's network is no XML, or has no ETag.
    ((ResponseParserError, KeyError), "bad_answer", "What answered does not speak S3's protocol."),
    # Connections fail with errors of botocore; only reading the files of the credentials fails like this.
    ((OSError,), "no_credentials", "The AWS credentials cannot be read."),
    ((BotoCoreError, ValueError), "misconfigured", "The settings of the S3 client are not valid."),
)


@contextmanager
def our_words(bucket: str) -> Iterator[None]:
    """Name what fails, with neither an address nor a secret in the detail."""
    try:
        yield
    except ClientError as error:
        raise _refusal(error, bucket) from error
    except (BotoCoreError, HTTPError, ResponseParserError, KeyError, OSError, ValueError) as error:
        reason, detail = next((reason, detail) for kinds, reason, detail in _FAILURES if isinstance(error, kinds))
        raise ModelStoreUnavailable(reason, detail) from error


def missing_bucket(bucket: str) -> ModelStoreUnavailable:
    """Return the error for a bucket that does not exist."""
    return ModelStoreUnavailable("missing_bucket", f"The bucket {bucket} does not exist.")


def truncated() -> ModelStoreUnavailable:
    """Return the error for an answer that did not arrive whole."""
    return ModelStoreUnavailable("truncated", _TRUNCATED)


def status_of(error: ClientError) -> int:
    """Return the HTTP status that S3 answered."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def _refusal(error: ClientError, bucket: str) -> WineError:
    status, code = status_of(error), error.response["Error"].get("Code", "")
    if code == "NoSuchBucket":
        return missing_bucket(bucket)
    if status in (404, 405):
        return ModelVersionNotFound(f"The bucket {bucket} does not hold this model any more.")
    if status == 412:
        return replaced()
    if status in (401, 403) or code in _BAD_TOKEN:
        return ModelStoreUnavailable("forbidden", f"S3 denies access to the bucket {bucket}.")
    if status >= 500 or status == 429:
        return ModelStoreUnavailable("server_error", f"S3 answered {status}.")
    return ModelStoreUnavailable("bad_answer", f"S3 answered {status}, which is not expected.")
