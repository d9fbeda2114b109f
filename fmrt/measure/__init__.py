"""Measurements of a bundle on this machine: ``fmrt bench`` and ``fmrt tune``."""

from fmrt.measure.benchmark import Bench, bench
from fmrt.measure.calibration import Tuned, tune
from fmrt.measure.candidates import Candidate, choose
from fmrt.measure.forms import TunedForm, tune_forms
from fmrt.measure.sample import sample_items

__all__ = [
    "Bench",
    "Candidate",
    "Tuned",
    "TunedForm",
    "bench",
    "choose",
    "sample_items",
    "tune",
    "tune_forms",
]
