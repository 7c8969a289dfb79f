"""The training station: data sets, pre-training, fine-tuning, probing, evaluation and analysis, on a GPU server."""
