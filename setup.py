"""
Build the native cipher where a compiler is there, and do without it where none is.

All that is static stands in C{setup.cfg}.  Here is only what depends on the machine: the two C extensions, the cipher
and the envelopes around it.  When they cannot be built, one line says why, the build goes on, and the wheel is one of
pure Python, tagged accordingly.  The modules C{kmsproto.kms.rijndael} and C{kmsproto.kms.envelopes} find out at run
time what they got.

The environment variable C{KMSPROTO_NATIVE_CIPHER} decides otherwise: C{require} makes it an error when the extensions
cannot be built, which is for those who package kmsproto, and C{omit} does not try.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    # Before setuptools 70.1 the command came with a package of its own, without which there are no wheels either.
    from wheel.bdist_wheel import bdist_wheel

VARIABLE = "KMSPROTO_NATIVE_CIPHER"

#: A Python without its global lock has no stable ABI, and setuptools refuses to name one.
HAS_STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")

EXTENSIONS = [
    Extension(
        name,
        sources=[source, "kmsproto/kms/rijndael_keys.c", "kmsproto/kms/rijndael_core.c"],
        depends=["kmsproto/kms/rijndael_keys.h", "kmsproto/kms/rijndael_core.h"],
        py_limited_api=True,
        extra_compile_args=(
            ["-O2", "-Wall", "-Wextra", "-fvisibility=hidden", "-fstack-protector-strong"]
            if os.name == "posix"
            else []
        ),
        extra_link_args=["-Wl,-z,relro,-z,now"] if sys.platform == "linux" else [],
    )
    for name, source in (
        ("kmsproto.kms._rijndael", "kmsproto/kms/_rijndael.c"),
        ("kmsproto.kms._envelopes", "kmsproto/kms/_envelopes.c"),
    )
]


class BuildExtension(build_ext):
    """
    Builds the extensions, or takes them out of the distribution and says so.
    """

    def run(self) -> None:
        """
        Called by setuptools.

        @raise SystemExit: If the variable demands what cannot be, or has a value without a meaning.
        """
        wish = os.environ.get(VARIABLE, "")
        if wish not in ("", "require", "omit"):
            raise SystemExit(
                f"{VARIABLE} is {wish!r}; it may be 'require' or 'omit', or not be set"
            )
        # The method of the base class changes its attribute, and does not change it back when it fails.
        in_place = self.inplace
        reason = f"{VARIABLE} is 'omit'" if wish == "omit" else self._try_to_build()
        if not reason:
            return
        if wish == "require":
            raise SystemExit(f"{VARIABLE} is 'require', but {reason}")
        self.warn(
            f"kmsproto goes without its native cipher, since {reason}; "
            "the one in Python takes its place and is slower"
        )
        if in_place:
            # What an earlier build left in the tree would be used, whatever sources it was made of.
            self.inplace = in_place
            for extension in EXTENSIONS:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
        self.extensions = self.distribution.ext_modules = []

    def _try_to_build(self) -> str:
        """
        Build the extensions.

        @return: Why that failed; empty if it did not.
        """
        if not HAS_STABLE_ABI:
            return "this Python has no stable ABI"
        if not Path(sysconfig.get_path("include"), "Python.h").is_file():
            return "the C headers of Python are not installed"
        try:
            super().run()
        except (BaseError, CCompilerError, OSError) as error:
            # What a compiler has to say, it has written itself; the error is but the command that failed.
            command = getattr(self.compiler, "compiler_so", None) or [""]
            if not shutil.which(command[0]):
                return f"there is no C compiler {command[0]!r}"
            return f"the C compiler {command[0]!r} failed ({type(error).__name__}; its messages are above)"
        return ""


class BuildWheel(bdist_wheel):
    """
    Makes the wheel, and its tag, of what could be built.
    """

    def run(self) -> None:
        """
        Called by setuptools.
        """
        # The extensions come first, since all else depends on whether they are there.
        self.run_command("build_ext")
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()


setup(
    ext_modules=EXTENSIONS,
    cmdclass={"build_ext": BuildExtension, "bdist_wheel": BuildWheel},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if HAS_STABLE_ABI else {},
)
