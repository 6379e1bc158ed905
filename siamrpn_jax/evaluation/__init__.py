"""Evaluation on the host: metrics, runner, baselines, result files, plots."""
