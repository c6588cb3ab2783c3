"""The user's own state: a value of numbers, texts and tensors, or an object that saves itself."""

from __future__ import annotations

from typing import Any

from spotrelay.core.errors import InvalidInput


class Extra:
    """What the script gave as `extra`. A plain dictionary or list is refilled in place on resume."""

    def __init__(self, value: Any) -> None:
        if value is not None and not isinstance(value, (dict, list)) and not _saves_itself(value):
            raise InvalidInput(
                f"extra is a {type(value).__qualname__}: give a dictionary, a list, or an object with "
                "state_dict and load_state_dict, so that a resumed run can fill it again"
            )
        self.value = value

    def capture(self) -> Any:
        """What belongs in the checkpoint; parts with a `state_dict` speak for themselves."""
        return _captured(self.value)

    def misfits(self, saved: Any) -> list[str]:
        """Why a saved value cannot be applied."""
        if saved is None or self.value is None:
            given = (saved is not None, self.value is not None)
            return [] if given[0] == given[1] else ["extra is in the checkpoint or the script, and not in the other"]
        if isinstance(self.value, list) and not isinstance(saved, list):
            return ["extra is a list here, and was none in the checkpoint"]
        return []

    def apply(self, saved: Any) -> None:
        """Fill the user's value again."""
        if self.value is None:
            return
        if _saves_itself(self.value):
            self.value.load_state_dict(saved)
        elif isinstance(self.value, dict):
            kept = {key: part for key, part in self.value.items() if _saves_itself(part) and key in saved}
            for key, part in kept.items():
                part.load_state_dict(saved[key])
            self.value.clear()
            self.value.update({key: kept.get(key, item) for key, item in saved.items()})
        else:
            self.value[:] = saved


def _saves_itself(value: Any) -> bool:
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def _captured(value: Any) -> Any:
    if _saves_itself(value):
        return value.state_dict()
    if type(value) is dict:
        return {key: _captured(item) for key, item in value.items()}
    return value
