"""Evaluation on the host: metrics, runner, baselines, result files, plots.

``evaluation.ope.got10k.Got10kTracker`` lends a tracker to the got10k toolkit, for
its experiments on OTB, GOT-10k, LaSOT and others.
"""
