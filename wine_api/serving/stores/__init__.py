"""Where models are kept: a folder or an S3 bucket, with the same keys and the same behaviour."""
