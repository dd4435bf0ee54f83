"""A mesh as a pytest fixture. Put `pytest_plugins = ["ambit.testing.plugin"]` into your `conftest.py`."""
