"""obstore, run in an environment of its own:
`obstore_client.py fetch|upload ENDPOINT BUCKET PREFIX DIRECTORY PARALLEL PART_BYTES`.

It fetches whole objects, several at a time: of rclone's server it takes no ranges, because that answers them with 200.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore  # type: ignore[import-not-found]  # it lives in the peer's environment
from obstore.store import S3Store  # type: ignore[import-not-found]

FILES = 4
"""At a time, when each is sent in several parts at a time."""


def main(job: str, endpoint: str, bucket: str, prefix: str, directory: str, parallel: str, part_bytes: str) -> None:
    # All processes of a machine share this clock.
    Path(os.environ["BENCH_BEGAN"]).write_text(repr(time.perf_counter()))
    store = S3Store(
        bucket,
        endpoint=endpoint,
        virtual_hosted_style_request=False,
        unsigned_payload=True,
        client_options={"allow_http": True},
    )
    run = {"fetch": fetch, "upload": upload}[job]
    run(store, prefix, Path(directory), int(parallel), int(part_bytes))


def fetch(store: S3Store, prefix: str, directory: Path, parallel: int, part_bytes: int) -> None:
    def bring(key: str) -> None:
        with (directory / Path(key).name).open("wb", buffering=0) as file:
            for piece in obstore.get(store, key).stream(part_bytes):
                file.write(piece)

    keys = [item["path"] for page in obstore.list(store, prefix) for item in page]
    with ThreadPoolExecutor(parallel) as pool:
        for done in [pool.submit(bring, key) for key in keys]:
            done.result()


def upload(store: S3Store, prefix: str, directory: Path, parallel: int, part_bytes: int) -> None:
    def send(path: Path) -> None:
        obstore.put(store, prefix + path.name, path, chunk_size=part_bytes, max_concurrency=parallel // FILES)

    with ThreadPoolExecutor(FILES) as pool:
        for done in [pool.submit(send, path) for path in sorted(directory.iterdir())]:
            done.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
