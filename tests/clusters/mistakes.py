"""A right fleet file, and what to look for once it is made wrong."""

from clusters.check import problems

FLEET = """\
version: 1
name: demo
sites:
  - name: east
    provider: aws
    region: us-east-1
    jurisdiction: us
    endpoint: https://east.example.com
    store: {url: "s3://east/weights"}
    machines: {head: m7i.xlarge}
    pools:
      - {name: l4, instance_type: g6.xlarge, accelerator: L4, gpus: 1, cpus: 8, usd_per_hour: 0.6, max_nodes: 2}
      - {name: plain, instance_type: c7i.xlarge, cpus: 4, usd_per_hour: 0.1}
  - name: west
    provider: gcp
    region: europe-west4
    jurisdiction: eu
    endpoint: https://west.example.com
    store: {url: "gs://west/weights"}
    machines: {head: n2-standard-4, zones: [europe-west4-a], project: example}
    pools:
      - {name: a100, instance_type: a2, accelerator: A100, gpus: 8, cpus: 96, usd_per_hour: 20}
  - name: home
    provider: onprem
    region: zurich
    jurisdiction: ch
    endpoint: https://home.example.com
    store: {url: "s3://home", endpoint: "https://objects.example.com", profile: home}
    machines: {head: gpu-0, hosts: [gpu-1]}
    pools:
      - {name: l40s, instance_type: server, accelerator: L40S, gpus: 2, cpus: 16, usd_per_hour: 0.5}
models:
  - {name: chat, source: weights/chat, release: "000000000000", tasks: [chat, completions], max_model_len: 1024}
  - {name: embed, source: weights/embed, release: "111111111111", tasks: [embeddings], max_model_len: 512}
placements:
  - model: chat
    site: east
    pool: l4
    gpus: 0.5
    batching: {max_num_seqs: 16, max_num_batched_tokens: 2048}
    autoscaling: {min_replicas: 1, max_replicas: 2}
  - {model: chat, site: west, pool: a100, gpus: 2}
  - {model: embed, site: home, pool: l40s, gpus: 0.25}
weights: {home: home}
ingress:
  machines: {head: c7i.xlarge}
routing: {poll_interval_s: 1, state_max_age_s: 5}
keys:
  - {name: me, sha256: "0000000000000000000000000000000000000000000000000000000000000000"}
hosted:
  - name: far
    url: https://api.example.com/v1
    key_env: FAR_KEY
    jurisdiction: au
    models:
      - {model: chat, name: far/chat, usd_per_million_input: 1, usd_per_million_output: 2}
"""


def assert_mistake(old: str, new: str, field: str | None, message: str, fix: str) -> None:
    """With `old` replaced, the file has that problem, on the line that changed; with no field, it has none."""
    assert old in FLEET
    text = FLEET.replace(old, new, 1)
    if field is None:
        assert problems(text) == []
        return
    found = {problem.field: problem for problem in problems(text)}
    assert field in found, found
    assert message in found[field].message
    assert fix in found[field].fix
    if "\n" not in old + new:
        assert found[field].line == FLEET[: FLEET.index(old)].count("\n") + 1
