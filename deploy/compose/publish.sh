#!/bin/sh
# Make the bucket of compose.yaml, and publish the bundled model into it, unless there is a model already.
set -eu

there_is_a_model() {
  python - <<'PYTHON'
import os

import boto3
from botocore.exceptions import ClientError

s3, bucket = boto3.client("s3"), os.environ["S3_BUCKET_NAME"]
try:
    s3.head_bucket(Bucket=bucket)
    s3.head_object(Bucket=bucket, Key="models/latest/wine_quality_model.joblib")
except ClientError as error:
    if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
        raise
    if error.operation_name == "HeadBucket":
        s3.create_bucket(Bucket=bucket)
    print("no")
else:
    print("yes")
PYTHON
}

answer=$(there_is_a_model)
# What somebody made the latest since then stays the latest.
if [ "$answer" = yes ]; then
  echo "s3://$S3_BUCKET_NAME has a model already"
else
  wine-api publish "${MODEL:-/model}/wine_quality_model.joblib" --to "s3://$S3_BUCKET_NAME"
fi
