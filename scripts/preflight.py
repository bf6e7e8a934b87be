"""Check what building Matryo needs from the system, before anything is downloaded.

In: this Python and its machine. Out: exit code 0, or one line for each missing thing and 1. Written
for any Python 3, so that an old one gets the message too.
"""

import os
import shutil
import sys
import sysconfig

MINIMUM = (3, 11)


def missing():
    """Return one sentence for each thing that is not there."""
    problems = []
    if sys.version_info < MINIMUM:
        problems.append(
            "Python {}.{} or newer is needed, {} is {}.{}; choose another: make PYTHON=…".format(
                *MINIMUM, sys.executable, *sys.version_info[:2]
            )
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        problems.append(
            "python3 cannot make environments; on Debian or Ubuntu: sudo apt install python3-venv"
        )
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        problems.append(
            "the headers of Python are missing; on Debian or Ubuntu: sudo apt install python3-dev"
        )
    compilers = [os.environ.get("CXX", "c++"), "g++", "clang++"]
    if not any(shutil.which(compiler.split()[0]) for compiler in compilers if compiler):
        problems.append("no C++ compiler found; on Debian or Ubuntu: sudo apt install g++")
    return problems


if __name__ == "__main__":
    found = missing()
    for problem in found:
        print("error: " + problem, file=sys.stderr)
    sys.exit(1 if found else 0)
