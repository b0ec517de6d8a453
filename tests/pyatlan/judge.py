"""Runs the steps of the named modules in order; the first that fails ends it."""

import importlib
import sys

for name in sys.argv[1:]:
    for step in importlib.import_module(name).STEPS:
        print(f"{name}: {step.__name__}", flush=True)
        step()
