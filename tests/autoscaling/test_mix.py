"""Which nodes are asked for, from what is there, what is leaving and what never came."""

from collections.abc import Sequence

from autoscaling.mix import Memory, Mix, News, Node, Want, decide
from clusters.mix import SpotSpec
from clusters.spec import PoolSpec
from clusters.state import NodeNotice
from tests.autoscaling.driving import NOON

SPOT = SpotSpec(pools=("a", "b"), min_on_demand_share=0.25, avoid_s=300, launch_s=60)
ONLY_A = SpotSpec(pools=("a",), launch_s=60)


def pool(name: str, usd: float, most: int = 4) -> PoolSpec:
    return PoolSpec(name=name, instance_type="x", accelerator="L4", gpus=1, usd_per_hour=usd, max_nodes=most)


POOLS = (pool("own", 0.9), pool("a", 0.4), pool("b", 0.4))


def want(nodes: int, model: str = "chat", spot: SpotSpec = SPOT) -> Want:
    return Want(model, nodes, spot, tuple(pool for pool in POOLS if pool.name in ("own", *spot.pools)))


def busy(*pools: str, model: str = "chat") -> list[Node]:
    return [Node(name, frozenset([model])) for name in pools]


def asked(
    wants: Sequence[Want],
    nodes: Sequence[Node],
    notices: Sequence[NodeNotice] = (),
    memory: Memory | None = None,
    now: float = NOON,
) -> Mix:
    return decide(wants, nodes, News(notices), memory or Memory(), now)


def test_from_nothing_the_mix_is_asked_for() -> None:
    mix = asked([want(3)], [])
    assert mix.nodes == {"own": 1, "a": 1, "b": 1}
    assert mix.reasons == {"chat": "3 nodes: 1 own, 1 a, 1 b"}


def test_a_pool_that_has_none_is_left_at_once_and_asked_again_later() -> None:
    mix = decide([want(3)], [], News((), {"a": NOON - 1}), Memory(), NOON)
    assert mix.nodes == {"own": 1, "b": 2}
    assert mix.reasons["chat"] == "3 nodes: 1 own, 2 b; not a: no node came"
    later = decide([want(3)], [], News((), {"a": NOON - 1}), mix.memory, NOON + 301)
    assert later.nodes == {"own": 1, "a": 1, "b": 1}
    again = decide([want(3)], [], News((), {"a": NOON + 302}), later.memory, NOON + 302)
    assert again.nodes == {"own": 1, "b": 2}


def test_nodes_are_asked_for_until_they_are_busy() -> None:
    assert asked([want(3)], [Node("b")]).nodes == {"own": 1, "a": 1, "b": 1}
    assert asked([want(3)], [Node("b"), Node("a"), *busy("own")]).nodes == {"a": 1, "b": 1}
    assert asked([want(3)], busy("own", "a", "b")).nodes == {}
    assert asked([want(5)], busy("own", "a", "b")).nodes == {"own": 2, "a": 2}


def test_a_noticed_node_is_replaced_from_another_pool() -> None:
    notice = NodeNotice(node="1", pool="a", ends_at=NOON + 120)
    nodes = [*busy("own", "b"), Node("a", frozenset(["chat"]), leaving=True)]
    assert asked([want(3)], nodes).nodes == {"b": 2}  # Ray drains it, the agent has not heard yet
    mix = asked([want(3)], nodes, [notice])
    assert mix.nodes == {"b": 2}
    assert mix.reasons["chat"] == "3 nodes: 1 own, 2 b; not a: took one back"
    assert asked([want(3)], busy("own", "b", "b"), [notice], now=NOON + 120 + 301).nodes == {}
    assert asked([want(4)], busy("own", "b", "b"), [notice], now=NOON + 120 + 301).nodes["a"] == 1


def test_nodes_that_do_not_come_are_asked_for_elsewhere_and_for_a_while_not_again() -> None:
    memory = Memory()
    for second in range(61):
        mix = asked([want(3)], busy("own", "a"), memory=memory, now=NOON + second)
        assert mix.nodes == {"b": 1}
        memory = mix.memory
    mix = asked([want(3)], busy("own", "a"), memory=memory, now=NOON + 61)
    assert mix.nodes == {"a": 2}
    assert mix.reasons["chat"].endswith("not b: no node came")
    assert asked([want(4)], busy("own", "a", "a"), memory=mix.memory, now=NOON + 300).nodes == {"a": 3}
    assert asked([want(4)], busy("own", "a", "a"), memory=mix.memory, now=NOON + 361).nodes == {"b": 1}


def test_a_node_that_came_and_went_was_not_a_failed_launch() -> None:
    memory = asked([want(3)], []).memory
    memory = asked([want(3)], busy("own", "a", "b"), memory=memory, now=NOON + 50).memory
    assert asked([want(3)], busy("own", "a"), memory=memory, now=NOON + 70).nodes == {"b": 1}


def test_while_nodes_keep_coming_the_pool_has_some_to_give() -> None:
    """One more is wanted every 40 s, and each is there 55 s later: one is always on its way, for longer than 60 s."""
    memory = Memory()
    for second in range(160):
        came = sum(ordered + 55 <= second for ordered in (0, 40, 80))
        mix = asked([want(1 + second // 40, spot=ONLY_A)], busy(*came * ["a"]), memory=memory, now=NOON + second)
        assert mix.nodes.keys() == {"a"}, (second, mix.reasons)
        memory = mix.memory


def test_nodes_that_stop_coming_are_given_up() -> None:
    memory = Memory()
    for second in range(120):
        here = busy(*["a"] * (second >= 50))
        mix = asked([want(2, spot=ONLY_A)], here, memory=memory, now=NOON + second)
        assert ("not a: no node came" in mix.reasons["chat"]) == (second >= 110), second
        memory = mix.memory


def test_others_nodes_are_neither_ours_nor_free() -> None:
    theirs = busy("own", "own", "own", model="embed")
    mix = asked([want(3)], theirs)
    assert mix.nodes == {"own": 4, "a": 1, "b": 1}
    full = asked([want(9)], [*theirs, *busy("own", model="embed")])
    assert full.nodes == {"a": 4, "b": 4}
    assert full.reasons["chat"] == "9 nodes: 4 a, 4 b; no room for 1"


def test_two_placements_that_share_a_node_pay_for_it_once() -> None:
    shared = Node("own", frozenset(["chat", "embed"]))
    mix = asked([want(1), want(1, "embed")], [shared])
    assert mix.nodes == {}


def test_after_scaling_down_the_idle_nodes_are_no_longer_asked_for() -> None:
    assert asked([want(1)], [*busy("own"), Node("a"), Node("b")]).nodes == {}
    assert asked([want(0)], [Node("own"), Node("a")]).nodes == {}


def test_the_share_on_demand_is_kept_even_if_only_spot_is_left_busy() -> None:
    assert asked([want(1)], busy("a")).nodes == {"own": 1}


def test_a_clock_that_goes_back_makes_nothing_fail() -> None:
    memory = asked([want(3)], []).memory
    assert asked([want(3)], [], memory=memory, now=NOON - 3600).nodes == {"own": 1, "a": 1, "b": 1}


def test_a_clock_that_goes_forward_makes_nothing_fail() -> None:
    memory = Memory()
    for now in (NOON, NOON + 1, NOON + 3600, NOON + 3601):
        mix = asked([want(3)], [], memory=memory, now=now)
        assert mix.reasons == {"chat": "3 nodes: 1 own, 1 a, 1 b"}
        memory = mix.memory
