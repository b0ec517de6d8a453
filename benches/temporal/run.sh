#!/bin/sh
# What an activity costs its worker: our worker beside one of Temporal's SDK for Python that makes the same call of the same tenant, on
# one development server, in one run.
#
#   benches/temporal/run.sh PROGRAM [--activities 1000] [--rounds 2]
#   benches/temporal/run.sh PROGRAM --soak 100000 [--minutes 30]     the memory of one worker of ours over a long time
#
# PROGRAM is a release build of `iolaus` with the feature `temporal`. Needs python3, and PyPI for the first time.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${CARGO_TARGET_DIR:-$here/../../target}/bench-temporal
if ! test -e "$place/installed"; then
    python3 -m venv --clear "$place"
    "$place/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    touch "$place/installed"
fi
exec "$place/bin/python" -B "$here/measure.py" "$place/bin/temporal" "$@"
