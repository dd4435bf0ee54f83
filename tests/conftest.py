pytest_plugins = ["ambit.testing.plugin"]
