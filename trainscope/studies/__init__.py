"""Studies: which number predicts what retraining ends at, and pruning by exhaustive trial."""
