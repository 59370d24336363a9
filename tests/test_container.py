"""
What the image promises, read from the Dockerfile: no engine is needed, and none is asked.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from kmsproto.net.activation import KMS_PORT
from kmsproto.service import sources
from kmsproto.service.settings import ENVIRONMENT_PREFIX, SETTINGS
from kmsproto.service.tap import Options
from tests.containers import ROOT, entry_point, final, health_check, read_dockerfile, variables


class ImageTests(SynchronousTestCase):
    """
    The Dockerfile.
    """

    def test_stages(self) -> None:
        """
        Two stages have the same base, a release of Debian by its tag, and the first one's compiler stays behind.
        """
        build, image = read_dockerfile()
        self.assertEqual(build[0].arguments.removesuffix(" AS build"), image[0].arguments)
        self.assertRegex(image[0].arguments, r"^docker\.io/library/debian:\$\{DEBIAN\}-slim$")
        installed = " ".join(each.arguments for each in image if each.name == "RUN")
        self.assertNotRegex(installed, r"\b(gcc|pip|venv|-dev)\b")

    def test_user(self) -> None:
        """
        It runs as a number that is not root's, to which the folder for the state belongs.
        """
        user, _, group = final("USER").arguments.partition(":")
        self.assertGreater(int(user), 0)
        self.assertGreater(int(group), 0)
        (command,) = (each.arguments for each in read_dockerfile()[-1] if each.name == "RUN")
        folder = f"--owner={user} --group={group} --mode=0750 {final('VOLUME').arguments}"
        self.assertIn(f"install --directory {folder}", command)

    def test_state(self) -> None:
        """
        The state is kept in the volume, which is also where the host runs.
        """
        state = variables()["KMSPROTO_STATE_DIRECTORY"]
        self.assertEqual(state, final("VOLUME").arguments)
        self.assertEqual(state, final("WORKDIR").arguments)

    def test_entry_point(self) -> None:
        """
        twistd takes the command as it stands: in the foreground, without a pidfile, with the settings of the image.
        """
        environment = variables()
        self.patch(Options, "environment", environment)
        self.patch(sources, "SYSTEM_CONFIGURATION", Path(self.mktemp()))
        options = ServerOptions()
        program, *arguments = entry_point()
        options.parseOptions(arguments)
        self.assertEqual(program, "twistd")
        self.assertTrue(options["nodaemon"])
        self.assertEqual(options["pidfile"], "")
        self.assertEqual(options.subCommand, "kms")
        settings = options.subOptions.effective
        self.assertEqual(str(settings["state-directory"]), environment["KMSPROTO_STATE_DIRECTORY"])

    def test_port(self) -> None:
        """
        The port that is exposed, and that the health check asks, is the one on which a host listens by default.
        """
        self.assertEqual(final("EXPOSE").arguments, f"{KMS_PORT}/tcp")
        self.assertIn(f"127.0.0.1:${{KMSPROTO_PORT:-{KMS_PORT}}} ", health_check()[-1])

    def test_health_check_times(self) -> None:
        """
        The check gives up by itself before the engine does, which would kill but its shell.
        """
        options = dict(word.lstrip("-").split("=") for word in final("HEALTHCHECK").options)
        (own,) = re.findall(r"--timeout (\d+)", health_check()[-1])
        self.assertLess(int(own), int(options["timeout"].removesuffix("s")))

    def test_variables(self) -> None:
        """
        Every variable of ours, in the Dockerfile and in compose.yaml, is one of a setting.
        """
        known = {
            ENVIRONMENT_PREFIX + setting.name.upper().replace("-", "_") for setting in SETTINGS
        }
        compose = (ROOT / "compose.yaml").read_text(encoding="utf-8")
        used = {name for name in variables() if name.startswith(ENVIRONMENT_PREFIX)}
        used.update(re.findall(rf"\b{ENVIRONMENT_PREFIX}\w+", compose + health_check()[-1]))
        self.assertEqual(used - known, set())
        self.assertGreater(len(used), 2)

    def test_context(self) -> None:
        """
        The engine is given all that the package is built from, and no folder or file besides.
        """
        config = configparser.ConfigParser(interpolation=None)
        config.read_string((ROOT / "setup.cfg").read_text(encoding="utf-8"))
        needed = {name.partition(".")[0] for name in config["options"]["packages"].split()}
        needed |= {"pyproject.toml", "setup.cfg", "setup.py", config["metadata"]["license_files"]}
        needed.add(config["metadata"]["long_description"].removeprefix("file:").strip())
        lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        rules = [line for line in lines if line and not line.startswith("#")]
        self.assertEqual(rules[0], "*")
        self.assertEqual({rule[1:] for rule in rules if rule.startswith("!")}, needed)
        # What is shut out again is made, never written.
        again = {rule for rule in rules[1:] if not rule.startswith("!")}
        self.assertEqual(again, {"**/__pycache__", "**/*.py[co]", "**/*.so", "**/dropin.cache"})
