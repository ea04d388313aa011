"""A driver, and a model of its card for the tests."""
