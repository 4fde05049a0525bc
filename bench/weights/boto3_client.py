"""boto3's own transfer manager, run in an environment of its own:
`boto3_client.py fetch|upload ENDPOINT BUCKET PREFIX DIRECTORY PARALLEL PART_BYTES`.
"""

import os
import sys
import time
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config

IO_BYTES = 2**20


def main(job: str, endpoint: str, bucket: str, prefix: str, directory: str, parallel: str, part_bytes: str) -> None:
    # All processes of a machine share this clock.
    Path(os.environ["BENCH_BEGAN"]).write_text(repr(time.perf_counter()))
    config = Config(
        max_pool_connections=int(parallel),
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path", "payload_signing_enabled": False},
    )
    client = boto3.client("s3", endpoint_url=endpoint, config=config)
    how = TransferConfig(
        multipart_threshold=int(part_bytes),
        multipart_chunksize=int(part_bytes),
        max_concurrency=int(parallel),
        io_chunksize=IO_BYTES,
    )
    # One manager for all files: they share its threads.
    with create_transfer_manager(client, how) as manager:
        if job == "fetch":
            listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
            keys = [item["Key"] for item in listed]
            futures = [manager.download(bucket, key, str(Path(directory, Path(key).name))) for key in keys]
        else:
            paths = sorted(Path(directory).iterdir())
            futures = [manager.upload(str(path), bucket, prefix + path.name) for path in paths]
        for future in futures:
            future.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
