"""From a trained ranker to a directory that tensorflow_model_server serves."""
