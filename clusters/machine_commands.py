"""What the shell of a machine is told: fetch secrets, install, start Ray. Every value that is not ours is quoted."""

import json
from collections.abc import Mapping
from shlex import quote

from clusters.spec import Provider

ORIGIN = "git+https://github.com/example/rayfleet"  # to be replaced by your own copy, or by the address of a wheel
SITE_PACKAGE = f"rayfleet[gpu] @ {ORIGIN}"
INGRESS_PACKAGE = f"rayfleet @ {ORIGIN}"
SECRETS_FILE = "/etc/rayfleet/env"
RAY_PORT = 6379


def directories(cache_dir: str | None) -> list[str]:
    cache = [f'sudo install -d -o "$(id -un)" {quote(cache_dir)}'] if cache_dir else []
    return ["sudo install -d -m 700 /etc/rayfleet", *cache]


def secrets(provider: Provider, region: str, project: str | None, name: str) -> str:
    """Puts the cluster's secrets into a file that only root reads."""
    keep = f"sudo install -m 600 /dev/stdin {SECRETS_FILE}"
    secret = quote(secret_name(name))
    if provider == Provider.AWS:
        options = f"--region {quote(region)} --secret-id {secret} --query SecretString --output text"
        return f"set -o pipefail; aws secretsmanager get-secret-value {options} | {keep}"
    if provider == Provider.GCP:
        options = f"--project {quote(project or '')} --secret {secret}"
        return f"set -o pipefail; gcloud secrets versions access latest {options} | {keep}"
    return f"sudo test -s {SECRETS_FILE}"


def secrets_origin(provider: Provider, name: str) -> str:
    """For people: where the secrets file comes from."""
    service = {Provider.AWS: "AWS Secrets Manager", Provider.GCP: "Google Secret Manager"}.get(provider)
    return (
        f"fetched from {service}, secret `{secret_name(name)}`"
        if service
        else "which you put there, mode 600, owner root"
    )


def secret_name(cluster_name: str) -> str:
    return f"rayfleet-{cluster_name}"


def install(provider: Provider, package: str) -> list[str]:
    """Into a virtual environment that later shells find first, so that plain `ray` is this one."""
    system = (
        [] if provider == Provider.ONPREM else ["sudo apt-get update -q && sudo apt-get install -qy git python3-venv"]
    )
    return [
        *system,
        "python3 -m venv ~/rayfleet",
        "grep -q rayfleet/bin ~/.bashrc || echo 'export PATH=\"$HOME/rayfleet/bin:$PATH\"' >> ~/.bashrc",
        f"~/rayfleet/bin/pip install {quote(package)}",
    ]


def install_autoscaler(provider: Provider) -> list[str]:
    """What Ray's autoscaler needs on the head beyond our own dependencies, to make nodes."""
    return ["~/rayfleet/bin/pip install google-api-python-client cryptography"] if provider == Provider.GCP else []


def start_head(settings: Mapping[str, str]) -> list[str]:
    """No GPUs: Serve's controller and the site agent run here, engines don't."""
    options = f"--head --port={RAY_PORT} --num-gpus=0 --autoscaling-config=~/ray_bootstrap_config.yaml"
    return _start(settings, options)


def start_worker(settings: Mapping[str, str], resources: Mapping[str, float]) -> list[str]:
    """`resources` beyond what Ray finds; cloud nodes get theirs from the autoscaler."""
    more = f" --resources={quote(json.dumps(dict(resources)))}" if resources else ""
    return _start(settings, f"--address=$RAY_HEAD_IP:{RAY_PORT}{more}")


def _start(settings: Mapping[str, str], options: str) -> list[str]:
    public = " ".join(f"{name}={quote(value)}" for name, value in settings.items())
    environment = f'secrets="$(sudo cat {SECRETS_FILE})" && set -a && eval "$secrets" && {public} && set +a'
    files = 'ulimit -n "$(ulimit -Hn)"'
    return ["ray stop", f"{environment} && {files} && ray start {options} --disable-usage-stats"]
