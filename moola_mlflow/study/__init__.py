"""Sweeps: an Optuna study whose trials are child runs of one MLflow run."""
