"""Values as YAML that people can review."""

from typing import Any

import yaml

from ambit.core.plain import plain


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(value: Any) -> str:
    return yaml.dump(plain(value), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
