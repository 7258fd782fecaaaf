"""How a classifier holds out against changes that are made to mislead it."""

from bob.robustness.accuracy import RobustResult, robust_accuracy
from bob.robustness.classifier import LinearClassifier, classifier

__all__ = ["LinearClassifier", "RobustResult", "classifier", "robust_accuracy"]
