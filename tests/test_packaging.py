"""
What C{setup.cfg} and C{setup.py} promise of the distributions, held to what is on disk.

Nothing is built here: C{setup.cfg} is read as the text it is, and C{setup.py} is parsed.  The list of packages is
written by hand, because C{find:} would leave out C{twisted.plugins} and take the tests in, so a package that was
forgotten has to be found by a test.
"""

from __future__ import annotations

import ast
import configparser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent


class SetupTests(SynchronousTestCase):
    """
    The metadata agree with the tree.
    """

    def setUp(self) -> None:
        """
        Read C{setup.cfg}.
        """
        self.config = configparser.ConfigParser(interpolation=None)
        self.config.read_string((ROOT / "setup.cfg").read_text(encoding="utf-8"))

    def words(self, section: str, option: str) -> list[str]:
        """
        Read an option that holds one value a line.
        """
        return self.config[section][option].split()

    def test_packages(self) -> None:
        """
        The list of packages names every folder of kmsproto with modules, C{twisted.plugins}, and nothing else.
        """
        folders = {path.parent for path in (ROOT / "kmsproto").rglob("*.py")}
        found = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
        self.assertEqual(set(self.words("options", "packages")), found | {"twisted.plugins"})

    def test_packages_importable(self) -> None:
        """
        Every package of kmsproto has an C{__init__.py}.
        """
        packages = self.words("options", "packages")
        ours = [name for name in packages if name != "twisted.plugins"]
        without = [n for n in ours if not (ROOT / n.replace(".", "/") / "__init__.py").is_file()]
        self.assertEqual(without, [])

    def test_package_data(self) -> None:
        """
        Every data file that is named is there, and every data file that is there is named.

        Of the extensions, neither the sources nor what was built of them in the tree are data.
        """
        named = {
            ROOT / package.replace(".", "/") / name.strip()
            for package, names in self.config["options.package_data"].items()
            for name in names.split(",")
        }
        present = {
            path
            for path in (ROOT / "kmsproto").rglob("*")
            if path.is_file() and path.suffix not in {".py", ".pyc", ".c", ".h", ".so"}
        }
        self.assertEqual(named, present)

    def test_extensions(self) -> None:
        """
        The extensions are made of every C file that is there, and of nothing else.
        """
        tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        named = {
            ROOT / text
            for text in texts
            if isinstance(text, str)
            and text.startswith("kmsproto/")
            and text.endswith((".c", ".h"))
        }
        self.assertEqual(named, {*(ROOT / "kmsproto").rglob("*.[ch]")})

    def test_version(self) -> None:
        """
        The version is a literal in the package, so that it can be read without importing what the package needs.
        """
        self.assertEqual(self.config["metadata"]["version"], "attr: kmsproto.__version__")
        tree = ast.parse((ROOT / "kmsproto" / "__init__.py").read_text(encoding="utf-8"))
        versions = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and any(isinstance(t, ast.Name) and t.id == "__version__" for t in node.targets)
        ]
        self.assertEqual(len(versions), 1)
        self.assertIsInstance(versions[0], str)

    def test_entry_point(self) -> None:
        """
        The command C{kmsproto} is a function that exists.
        """
        command, _, target = self.config["options.entry_points"]["console_scripts"].partition("=")
        self.assertEqual(command.strip(), "kmsproto")
        module, _, function = target.strip().partition(":")
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
        defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        self.assertIn(function, defined)
