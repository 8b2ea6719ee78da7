"""The mode state machine: what was asked and what time it is in, the mode and its lease out. Pure.

observe and suggest are granted to anybody; control is a lease for one controller and falls back to what stood before;
hold is an operator's order that only a request ends.
"""

from dataclasses import dataclass, replace

from agent.messages import Mode, ModeRequest


@dataclass(frozen=True)
class ModeState:
    """`base` is what the agent returns to when a lease ends."""

    mode: Mode
    base: Mode
    controller: str | None = None
    lease_s: float = 0.0
    expires_ns: int | None = None

    def expires_in_s(self, now_ns: int) -> float:
        return 0.0 if self.expires_ns is None else max(0.0, (self.expires_ns - now_ns) / 1e9)


def begin(base: Mode) -> ModeState:
    return ModeState(mode=base, base=base)


def next_mode(state: ModeState, asked: ModeRequest | None, now_ns: int) -> ModeState:
    """One request or the mere passing of time -> the new state."""
    if asked is None:
        expired = state.mode is Mode.CONTROL and state.expires_ns is not None and now_ns >= state.expires_ns
        return begin(state.base) if expired else state
    if asked.mode is Mode.CONTROL:
        return _lend(next_mode(state, None, now_ns), asked, now_ns)
    if asked.mode is Mode.HOLD:
        return replace(begin(Mode.HOLD), base=state.base)
    return begin(asked.mode)


def _lend(state: ModeState, asked: ModeRequest, now_ns: int) -> ModeState:
    """A lease is renewed by its holder; another controller waits until it lapses. An operator's hold outranks it."""
    if state.mode is Mode.HOLD or (state.mode is Mode.CONTROL and state.controller != asked.controller):
        return state
    lease_s = asked.lease_s or 0.0
    return ModeState(Mode.CONTROL, state.base, asked.controller, lease_s, now_ns + round(lease_s * 1e9))
