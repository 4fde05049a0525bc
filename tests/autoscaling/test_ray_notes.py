"""Notes in a real cluster's key-value store."""

from collections.abc import Iterator

import pytest
import ray
from ray.experimental.internal_kv import internal_kv_get_gcs_client

from autoscaling import ray_notes
from autoscaling.forecast import History
from autoscaling.ray_notes import NAMESPACE, Order, Word
from clusters.scaling import AutoscalingSpec
from tests.autoscaling.driving import NOON, spec


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # Left to itself, Ray makes a token for this user, and tells all processes to come to ask for one.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray.init(num_cpus=0, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
        yield
        ray.shutdown()


def test_without_a_cluster_there_are_no_notes() -> None:
    ray_notes.write("chat", Word(2, "why", NOON))
    assert ray_notes.read("chat", Word) is None


@pytest.mark.usefixtures("cluster")
def test_notes_are_kept_by_application_and_kind() -> None:
    history = History()
    for minute in range(600):
        history = history.add(minute % 7, NOON + 60 * minute)
    ray_notes.write("chat", history)
    ray_notes.write("chat", Word(2, "up 1 to 2: 9.0 requests", NOON))
    ray_notes.write("chat", Order(number=1, held=3, max_replicas=0))
    assert ray_notes.read("chat", History) == history
    assert ray_notes.read("chat", Word) == Word(2, "up 1 to 2: 9.0 requests", NOON)
    assert ray_notes.read("chat", Order) == Order(number=1, held=3, max_replicas=0)
    assert ray_notes.read("embed", Word) is None
    ray_notes.write("chat", Word(3, "later", NOON))
    assert ray_notes.read("chat", Word) == Word(3, "later", NOON)


@pytest.mark.usefixtures("cluster")
def test_settings_are_a_note_too_and_those_of_another_version_are_none() -> None:
    settings = spec(min_replicas=0, policy="utilisation")
    ray_notes.write("chat", settings)
    assert ray_notes.read("chat", AutoscalingSpec) == settings
    internal_kv_get_gcs_client().internal_kv_put(b"odd:AutoscalingSpec", b'{"later": 1}', True, NAMESPACE, 5)
    assert ray_notes.read("odd", AutoscalingSpec) is None


@pytest.mark.usefixtures("cluster")
def test_a_note_that_is_not_understood_is_none(caplog: pytest.LogCaptureFixture) -> None:
    internal_kv_get_gcs_client().internal_kv_put(b"odd:Order", b'{"number": "soon"}', True, NAMESPACE, 5)
    assert ray_notes.read("odd", Order) is None
    assert "can't read the Order of odd" in caplog.text
