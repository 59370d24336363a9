"""
The layers of kmsproto, held by walking its imports.

Nothing is imported here: every module is parsed with C{ast}, and each import statement in it, wherever it stands
(also inside a function or under C{TYPE_CHECKING}), becomes an edge from that module to the modules it names.  The rules
are tables that say for a layer which other layers and which packages of other projects it may name; what is not in
a table is forbidden.  A failure lists every offending edge, so one run shows all that has to move.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent

#: The longest a module may be, in lines.
MAXIMUM_LINES = 650

#: For each layer (the name below C{kmsproto}) the layers that it may import.  The package itself stands as C{""}.
LAYERS: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "findings": frozenset(),
    "rpc": frozenset({"errors", "findings", "rpc"}),
    "kms": frozenset({"errors", "findings", "kms"}),
    "store": frozenset({"errors", "kms", "store"}),
    "net": frozenset({"", "errors", "findings", "rpc", "kms", "net"}),
    "audit": frozenset({"", "errors", "findings", "rpc", "kms", "audit"}),
    "decode": frozenset({"", "errors", "findings", "rpc", "kms", "decode"}),
    "service": frozenset({"", "errors", "rpc", "kms", "store", "net", "service", "web"}),
    "web": frozenset({"", "errors", "kms", "store", "net", "web"}),
    "cli": frozenset(
        {
            *("", "errors", "findings", "rpc", "kms", "store", "net", "audit", "decode"),
            *("service", "web", "cli"),
        }
    ),
    "testing": frozenset({"", "errors", "rpc", "kms", "store", "net", "service", "testing"}),
    "": frozenset({"errors", "rpc", "kms", "store", "net", "service", "testing"}),
}

#: The layers that know Twisted, and all that comes with it.
ON_TWISTED = frozenset({"net", "service", "web", "cli", "testing"})

#: The packages of other projects that a layer may import.
TWISTED_AND_KIN = frozenset(
    {"twisted", "zope", "constantly", "hyperlink", "OpenSSL", "service_identity", "cryptography"}
)

#: The one module below the layers C{service}, C{cli} and C{testing} that knows both C{rpc} and C{kms}.
MEETING_PLACE = "kmsproto.net.activation"


def source_files() -> list[Path]:
    """
    List every module of the project that ships: the package, and what it adds to C{twisted.plugins}.
    """
    return sorted([*(ROOT / "kmsproto").rglob("*.py"), *(ROOT / "twisted").rglob("*.py")])


def module_name(path: Path) -> str:
    """
    Tell the dotted name under which a file of the project is imported.
    """
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


#: All modules of the project by name; a package is named without C{__init__}.
MODULES: dict[str, Path] = {module_name(path): path for path in source_files()}


def layer_of(name: str) -> str:
    """
    Tell the layer of a module of C{kmsproto}: C{kmsproto.rpc.pdu} belongs to C{rpc}, C{kmsproto} itself to C{""}.
    """
    return [*name.split("."), ""][1]


def imported_names(tree: ast.AST, name: str, is_package: bool) -> Iterator[str]:
    """
    Yield the dotted name of each module that a module imports.

    C{from x import y} yields C{x.y} if that is a module of the project, C{x} otherwise.

    @param tree: The parsed module.
    @param name: Its dotted name, against which relative imports are resolved.
    @param is_package: Whether it is the C{__init__} of a package.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = name.split(".")
                dropped = node.level - 1 if is_package else node.level
                prefix = parents[: len(parents) - dropped]
                base = ".".join([*prefix, base] if base else prefix)
            for alias in node.names:
                longer = f"{base}.{alias.name}"
                yield longer if longer in MODULES else base


def parse(path: Path) -> ast.Module:
    """
    Parse a module without running it.
    """
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def all_imports() -> dict[str, frozenset[str]]:
    """
    Map the name of each module of the project to the names that it imports.
    """
    return {
        name: frozenset(imported_names(parse(path), name, path.name == "__init__.py"))
        for name, path in MODULES.items()
    }


def is_ours(name: str) -> bool:
    """
    Tell whether a dotted name belongs to C{kmsproto}.
    """
    return name.split(".")[0] == "kmsproto"


def find_cycle(graph: dict[str, frozenset[str]]) -> list[str]:
    """
    Find modules that import each other in a ring.

    @return: The names along the ring, the first one again at the end; an empty list if there is none.
    """
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for target in sorted(graph.get(name, frozenset())):
            ring = visit(target, [*path, name])
            if ring:
                return ring
        done.add(name)
        return []

    for start in sorted(graph):
        ring = visit(start, [])
        if ring:
            return ring
    return []


class ImportWalkTests(SynchronousTestCase):
    """
    The walk itself sees what it is meant to see.
    """

    def names(self, source: str, name: str = "kmsproto.net.server") -> set[str]:
        """
        List what a source text imports.
        """
        return set(imported_names(ast.parse(source), name, is_package=False))

    def test_plain(self) -> None:
        """
        C{import a.b} and C{from a.b import c} both name C{a.b}.
        """
        self.assertEqual(self.names("import json.decoder"), {"json.decoder"})
        self.assertEqual(self.names("from json.decoder import JSONDecoder"), {"json.decoder"})

    def test_module_of_a_package(self) -> None:
        """
        A module that is taken from its package is named, not only the package.
        """
        self.assertEqual(self.names("from kmsproto import errors"), {"kmsproto.errors"})

    def test_hidden(self) -> None:
        """
        An import inside a function or under a condition counts as well.
        """
        self.assertEqual(self.names("def f():\n    if f:\n        import struct"), {"struct"})

    def test_relative(self) -> None:
        """
        A relative import is resolved against the module or package it stands in.
        """
        self.assertEqual(self.names("from ..errors import KMSProtoError"), {"kmsproto.errors"})
        tree = ast.parse("from . import errors")
        self.assertEqual(
            set(imported_names(tree, "kmsproto", is_package=True)), {"kmsproto.errors"}
        )

    def test_cycle(self) -> None:
        """
        A ring of imports is found, and a graph without one has none.
        """
        graph = {"a": frozenset("b"), "b": frozenset("cd"), "c": frozenset("a")}
        self.assertEqual(find_cycle(graph), ["a", "b", "c", "a"])
        self.assertEqual(find_cycle({"a": frozenset("bc"), "b": frozenset("c")}), [])


class LayerTests(SynchronousTestCase):
    """
    Imports run one way: errors, rpc, net, service, and errors, kms, store, service.
    """

    def setUp(self) -> None:
        """
        Read the imports of the whole project.
        """
        self.imports = all_imports()
        self.ours = {name: names for name, names in self.imports.items() if is_ours(name)}

    def assert_nothing(self, offences: list[str]) -> None:
        """
        Fail with the list of offences unless it is empty.
        """
        self.assertEqual(offences, [], "\n" + "\n".join(offences))

    def test_all_found(self) -> None:
        """
        The walk reaches every layer that the first release has, and the plugin.
        """
        layers = {layer_of(name) for name in self.ours}
        self.assertEqual({"", "errors", "rpc", "kms", "net", "service", "cli"} - layers, set())
        self.assertIn("twisted.plugins.kmsproto_plugin", self.imports)

    def test_known_layers(self) -> None:
        """
        Every module belongs to a layer that has a rule.
        """
        self.assert_nothing([name for name in self.ours if layer_of(name) not in LAYERS])

    def test_one_way(self) -> None:
        """
        A module imports only from the layers below its own, or from its own.
        """
        self.assert_nothing(
            [
                f"{name} imports {target}"
                for name, targets in self.ours.items()
                for target in targets
                if is_ours(target)
                and layer_of(target) not in LAYERS.get(layer_of(name), frozenset())
            ]
        )

    def test_cores_stand_alone(self) -> None:
        """
        The errors, C{rpc}, C{kms}, C{audit} and C{store} import the standard library and nothing of other projects, and
        C{decode} only what reads captures beside it.
        """
        self.assert_nothing(
            [
                f"{name} imports {target}"
                for name, targets in self.ours.items()
                if layer_of(name) not in ON_TWISTED
                for target in targets
                if not is_ours(target)
                and target.split(".")[0] not in sys.stdlib_module_names
                and (layer_of(name), target.split(".")[0]) != ("decode", "dpkt")
            ]
        )

    def test_foreign_packages(self) -> None:
        """
        The layers on Twisted import nothing beside Twisted and its kin; only C{cli} imports click and rich, and only
        C{net} what knows the addresses of this machine.
        """
        allowed = TWISTED_AND_KIN | sys.stdlib_module_names | {"kmsproto"}
        self.assert_nothing(
            [
                f"{name} imports {target}"
                for name, targets in self.ours.items()
                if layer_of(name) in ON_TWISTED
                for target in targets
                if target.split(".")[0] not in allowed
                and (layer_of(name), target.split(".")[0])
                not in (("cli", "click"), ("cli", "rich"), ("net", "ifaddr"))
            ]
        )

    def test_meeting_place(self) -> None:
        """
        Within C{net}, a module that imports both C{rpc} and C{kms} can only be the one made for it.
        """
        self.assert_nothing(
            [
                name
                for name, targets in self.ours.items()
                if layer_of(name) == "net"
                and name != MEETING_PLACE
                and {"rpc", "kms"} <= {layer_of(target) for target in targets if is_ours(target)}
            ]
        )

    def test_no_cycles(self) -> None:
        """
        No modules import each other in a ring.
        """
        # The package itself re-exports from above; who imports its version is not part of a ring.
        graph = {name: targets - {"kmsproto"} for name, targets in self.ours.items()}
        self.assertEqual(find_cycle(graph), [])

    def test_plugin(self) -> None:
        """
        The plugin imports Twisted alone, so that C{twistd --help} loads nothing of ours.
        """
        self.assert_nothing(
            [
                f"{name} imports {target}"
                for name, targets in self.imports.items()
                if not is_ours(name)
                for target in targets
                if target.split(".")[0] not in {"twisted", "__future__"}
            ]
        )


class ModuleTests(SynchronousTestCase):
    """
    Every module explains itself, and none outgrows its reader.
    """

    def test_docstrings(self) -> None:
        """
        Every module that ships opens with a docstring.
        """
        missing = [name for name, path in MODULES.items() if not ast.get_docstring(parse(path))]
        self.assertEqual(missing, [])

    def test_length(self) -> None:
        """
        No module that ships is longer than the limit.
        """
        lengths = {
            name: len(path.read_text(encoding="utf-8").splitlines())
            for name, path in MODULES.items()
        }
        self.assertEqual({n: lines for n, lines in lengths.items() if lines > MAXIMUM_LINES}, {})

    def test_plugins_is_no_package(self) -> None:
        """
        C{twisted/} here adds to Twisted's package: neither it nor C{twisted/plugins/} has an C{__init__.py}.
        """
        self.assertEqual([str(path) for path in (ROOT / "twisted").rglob("__init__.py")], [])
