"""Models from code: the files that MLflow runs to rebuild a served model. They hold no state and no pickle."""
