"""What `rayfleet demo` shows of a running local fleet, and how `--once` checks it."""

import time
from typing import Any

import openai
from openai import OpenAI
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from clusters.launch.local import INGRESS, LocalFleet
from clusters.launch.processes import LaunchError, log_tail
from clusters.spec import ModelSpec, Task
from clusters.state import Readiness
from serve_app.cli.endpoint import FleetRefused, FleetUnreachable
from serve_app.cli.status import Site, read_sites, sites_table

QUESTION = "What is rayfleet?"
HEALTHY_TIMEOUT_S = 60
DEPLOYED = {Readiness.READY, Readiness.ASLEEP}
SITE_HEADER = "x-rayfleet-site"
PIN_HEADER = "x-rayfleet-site-only"


def wait_healthy(local: LocalFleet) -> None:
    """Until the ingress has seen every site healthy. Raises LaunchError."""
    deadline = time.monotonic() + HEALTHY_TIMEOUT_S
    while True:
        try:
            sites = read_sites(local.endpoint, local.api_key)
        except (FleetUnreachable, FleetRefused) as error:
            sites, reason = [], str(error)
        else:
            reason = "; ".join(filter(None, map(_why_not_ready, sites)))
        if sites and not reason:
            return
        if time.monotonic() > deadline:
            raise LaunchError(f"the ingress sees no healthy fleet: {reason}\n{log_tail(local.run.log(INGRESS))}")
        time.sleep(0.2)


def _why_not_ready(site: Site) -> str:
    if not site["healthy"]:
        return f"{site['site']}: {site['reason']}"
    waiting = [placement["model"] for placement in site["placements"] if placement["readiness"] not in DEPLOYED]
    return f"{site['site']}: {', '.join(waiting)} not ready" if waiting else ""


def show_fleet(local: LocalFleet, console: Console) -> None:
    console.print(sites_table(read_sites(local.endpoint, local.api_key)))


def show_answer(local: LocalFleet, console: Console) -> None:
    """A streamed answer, as it arrives. Raises LaunchError unless it ends as it should."""
    began = time.monotonic()
    raw = _client(local).chat.completions.with_raw_response.create(
        model=_model(local, Task.CHAT).name,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        stream=True,
    )
    console.print(f"[bold]{QUESTION}")
    answer, first, finish = "", 0.0, None
    for chunk in raw.parse():
        for choice in chunk.choices:
            if choice.delta.content:
                first = first or time.monotonic() - began
                answer += choice.delta.content
                console.print(choice.delta.content, end="", style="cyan", markup=False, highlight=False)
            finish = choice.finish_reason or finish
    seconds = time.monotonic() - began
    console.print(
        f"\n[dim]streamed by {raw.headers[SITE_HEADER]}; first token after {first:.2f} s, all {seconds:.2f} s\n"
    )
    if not answer.strip() or finish not in ("stop", "length"):
        raise LaunchError(f"the streamed answer did not end well: {answer!r}, finish_reason {finish!r}")


def check_answers(local: LocalFleet, console: Console) -> None:
    """Every site answers for each of its models, and nobody gets in without a key. Raises LaunchError."""
    client = _client(local)
    for placement in local.fleet.placements:
        answer = _ask(client, local.fleet.model(placement.model), placement.site)
        if answer.headers[SITE_HEADER] != placement.site:
            raise LaunchError(f"{placement.site} was asked, {answer.headers[SITE_HEADER]} answered")
        console.print(f"[green]✓[/] {placement.model} answers at {placement.site}")
    try:
        OpenAI(base_url=f"{local.endpoint}/v1", api_key="wrong", max_retries=0).models.list()
    except openai.AuthenticationError:
        console.print("[green]✓[/] a wrong key is refused")
    else:
        raise LaunchError("a wrong key was let in")


def show_access(local: LocalFleet, console: Console) -> None:
    """URLs, the key, and something to paste."""
    model = _model(local, Task.CHAT).name
    body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'
    shell = (
        f"export OPENAI_BASE_URL={local.endpoint}/v1 OPENAI_API_KEY={local.api_key}\n"
        'curl $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\\n'
        f"  -H 'Content-Type: application/json' -d '{body}'"
    )
    python = (
        "from openai import OpenAI   # reads the two variables above\n"
        f'messages = [{{"role": "user", "content": "{QUESTION}"}}]\n'
        f'answer = OpenAI().chat.completions.create(model="{model}", messages=messages)\n'
        "print(answer.choices[0].message.content)"
    )
    console.print(Panel(_urls(local), title="Endpoint and dashboards", title_align="left"))
    for title, code in (("In a shell", shell), ("In Python", python)):
        console.print(f"\n[bold]{title}")
        # Not wrapped: what is copied must still run.
        console.print(code, style="cyan", soft_wrap=True, markup=False, highlight=False)
    console.print()


def _urls(local: LocalFleet) -> Text:
    rows = [("endpoint", f"{local.endpoint}/v1"), ("API key", local.api_key)]
    rows += [(f"Ray: {name}", f"{head.dashboard}   token {head.token}") for name, head in local.heads.items()]
    rows.append(("configs, logs", str(local.run.directory)))
    return Text("\n".join(f"{label:<22} {value}" for label, value in rows))


def _ask(client: OpenAI, model: ModelSpec, site: str) -> Any:
    pin = {PIN_HEADER: site}
    if Task.EMBEDDINGS in model.tasks:
        return client.embeddings.with_raw_response.create(model=model.name, input=QUESTION, extra_headers=pin)
    return client.completions.with_raw_response.create(
        model=model.name, prompt=QUESTION, max_tokens=4, temperature=0, extra_headers=pin
    )


def _model(local: LocalFleet, task: Task) -> ModelSpec:
    for model in local.fleet.models:
        if task in model.tasks:
            return model
    raise LaunchError(f"the demo needs a model with the task {task}, and the fleet has none")


def _client(local: LocalFleet) -> OpenAI:
    return OpenAI(base_url=f"{local.endpoint}/v1", api_key=local.api_key, max_retries=0, timeout=120)
