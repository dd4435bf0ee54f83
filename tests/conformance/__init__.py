"""The Gateway API's official conformance suite against ambit: `./dev conformance`."""
