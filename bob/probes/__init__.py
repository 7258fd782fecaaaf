"""Estimators on stored features."""
