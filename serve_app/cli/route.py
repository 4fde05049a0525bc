"""`rayfleet route`: where a request would go, or went, and why. Nothing is sent to any site."""

import json
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from serve_app.admission import JURISDICTION, POLICY, SESSION
from serve_app.cli.endpoint import DEFAULT_DIR, DirOption, Endpoint, EndpointOption, JsonOption
from serve_app.cli.reasons import reasons
from serve_app.cli.steps import console
from serve_app.openai import ROUTES
from serve_app.routing.explanation import Explanation

DEFAULT_ROUTE = "/v1/chat/completions"


class NoPlace(Exception):
    """No place takes the request. The message says why none does."""


def route(
    model: Annotated[str | None, typer.Argument(help="That the request asks for.")] = None,
    prompt: Annotated[str, typer.Option(help="Its text.")] = "",
    stream: Annotated[bool, typer.Option(help="Whether it asks for a stream.")] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of the answer.")] = None,
    body: Annotated[
        typer.FileBinaryRead | None, typer.Option(help="Its whole JSON body instead, from a file; - is standard input.")
    ] = None,
    path: Annotated[str, typer.Option("--route", help="Its path.")] = DEFAULT_ROUTE,
    policy: Annotated[str | None, typer.Option(help="Header x-rayfleet-policy.")] = None,
    jurisdiction: Annotated[str | None, typer.Option(help="Header x-rayfleet-jurisdiction: eu,ch")] = None,
    session: Annotated[str | None, typer.Option(help="Header x-rayfleet-session.")] = None,
    request: Annotated[
        str | None, typer.Option(help="Show the choice for the request of this id, one of the latest, instead.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show every place with its terms, or why not.")] = False,
    endpoint: EndpointOption = None,
    directory: DirOption = DEFAULT_DIR,
    as_json: JsonOption = False,
) -> None:
    """Say which place a request would go to. Exits with 1 when none takes it."""
    if sum(given is not None for given in (model, body, request)) != 1:
        raise typer.BadParameter("name a MODEL, or give one of --body and --request")
    ingress = Endpoint.find(endpoint, directory)
    if request is not None:
        told = ingress.get(f"/fleet/route/{quote(request, safe='')}")
    else:
        content = body.read() if body else _body(path, model, prompt, stream, max_tokens)
        headers = {POLICY: policy, JURISDICTION: jurisdiction, SESSION: session}
        given = {name.decode(): value for name, value in headers.items() if value is not None}
        told = ingress.post(f"/fleet/route?{urlencode({'route': path})}", content, given)
    _show(told, explain, as_json)


def _body(path: str, model: str | None, prompt: str, stream: bool, max_tokens: int | None) -> bytes:
    """Of the smallest request that the route takes, written as OpenAI's clients write it: caches go by its bytes."""
    names = list(ROUTES[path].prompt) if path in ROUTES else []
    if not names:
        known = ", ".join(known for known, each in ROUTES.items() if each.prompt)
        raise typer.BadParameter(f"{path} needs a --body; a MODEL is enough for {known}")
    text: Any = [{"role": "user", "content": prompt}] if names[0] == "messages" else prompt
    fields = {"model": model, names[0]: text, "stream": stream}
    if max_tokens is not None:
        fields["max_tokens"] = max_tokens
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def _show(told: Any, explain: bool, as_json: bool) -> None:
    """Raises NoPlace, or exits with 1, when there is none."""
    explanation = Explanation.model_validate(told)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    elif explain:
        console().print(reasons(explanation))
    elif explanation.target is None:
        raise NoPlace(_why_none(explanation))
    else:
        typer.echo(explanation.target)
    if explanation.target is None:
        raise typer.Exit(1)


def _why_none(explanation: Explanation) -> str:
    why = "; ".join(f"{place}: {reason}" for place, reason in explanation.rejections.items())
    return f"no place takes it. {why}"
