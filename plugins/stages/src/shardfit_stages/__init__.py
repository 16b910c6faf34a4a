"""Stages: models published atomically to S3, GCS, Azure or a directory, and read back checked."""
