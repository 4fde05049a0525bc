"""Errors that are not the API's own."""

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from serve_app import errors


@pytest.fixture
def client() -> TestClient:
    app = FastAPI(openapi_url=None)
    errors.install(app)

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("secret")

    @app.get("/number")
    async def number(n: int) -> int:
        return n

    return TestClient(app, raise_server_exceptions=False)


def test_the_unforeseen_is_told_without_internals(client: TestClient) -> None:
    response = client.get("/broken")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "secret" not in response.text


def test_fastapis_own_validation_names_the_parameter(client: TestClient) -> None:
    response = client.get("/number", params={"n": "x"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "n")
