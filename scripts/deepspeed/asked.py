"""A dict section of a ds_config that notes what DeepSpeed looks for in it."""

from __future__ import annotations

from typing import Any


class Asked(dict[str, Any]):
    """A section that writes down which keys it is asked for, and with which default."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given)
        self.asked: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        self.asked[key] = default if self.asked.get(key) is None else self.asked[key]
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.asked.setdefault(str(key), None)
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self.asked.setdefault(key, None)
        return super().__getitem__(key)

    def keys(self) -> Any:
        owner = self

        class Keys(list[str]):
            def __contains__(self, key: object) -> bool:
                return key in owner

        return Keys(super().keys())

    def __copy__(self) -> Asked:
        return self
