"""The virtual microscope as a program on the wire: frames out at their own rate, advice in, acknowledgements back.

`scan()` is one frame. While it is being scanned the controller listens: it renews its lease, obeys suggestions by
compare-and-set, and acknowledges each once the optics have settled. Without a heartbeat for 3 s it obeys nobody.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from agent.messages import Optics, Outcome
from agent.wire import array1
from calibration.twin.link import Link, Message
from calibration.twin.microscope import VirtualMicroscope
from calibration.twin.obey import acknowledgement, obey
from calibration.twin.readback import Applied, applied
from calibration.twin.script import Action, StreamFilter, act, sound

LEASE_S = 5.0
RENEW = 1.0 / 3.0  # of the lease
RETRY_S = 0.5  # between two requests for a lease that was not given
DEAD_MAN_S = 3.0  # without a heartbeat the agent is gone
REMEMBERED = 1000  # suggestions seen, so that one that comes twice is obeyed once
STEP_S = 0.02  # how often an idle wait looks at what is due

Listener = Callable[[Message], None]


@dataclass(frozen=True)
class Taken:
    """One frame as it was published."""

    number: int
    pixels: NDArray[Any]
    optics: Optics
    defocus_m: float  # the truth, for the microscope's owner


class Controller:
    """One process, one link; the microscope behind it can be exchanged (a new session) at any time.

    speed: virtual seconds in a real one. lockstep: wait for the agent's word on each frame, not for the scan's time.
    delay_s: how long it thinks before it obeys.
    """

    def __init__(
        self,
        link: Link,
        scope: VirtualMicroscope,
        *,
        name: str = "virtual microscope",
        speed: float = 1.0,
        lockstep: bool = False,
        wants_control: bool = True,
        stream: StreamFilter = sound,
        acknowledges: bool = True,
        delay_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.link, self.scope, self.name = link, scope, name
        self.speed, self.lockstep, self.wants_control = speed, lockstep, wants_control
        self.stream, self.acknowledges, self.delay_s, self._clock = stream, acknowledges, delay_s, clock
        self.listeners: list[Listener] = []
        self.says: Callable[[str], None] = lambda _: None
        self.number = 0  # of the next frame; goes on over sessions
        self.heard: Message = {}  # the last status
        self.outcomes: list[tuple[str, Outcome]] = []  # of this session
        self._script: deque[Action] = deque()
        self._received: deque[tuple[float, Message]] = deque()  # suggestions it still thinks about, by when they came
        self._due: deque[tuple[int, Message, Applied]] = deque()  # acknowledgements, by when the optics settle
        self._seen: deque[str] = deque(maxlen=REMEMBERED)
        self._answered = -1  # the last frame the agent gave its word on
        self._heartbeat_s: float | None = None
        self._boot: str | None = None
        self._lease_request, self._ask_again_s, self.granted = "", 0.0, False

    @property
    def alive(self) -> bool:
        """Has the agent given a sign of life within the dead-man's time?"""
        return self._heartbeat_s is not None and self._clock() - self._heartbeat_s < DEAD_MAN_S

    @property
    def busy(self) -> bool:
        """Does something still move or wait for its acknowledgement?"""
        return bool(self._received or self._due) or self.scope.now_ns < self.scope.settled_ns

    def begin_session(self, scope: VirtualMicroscope, script: Sequence[Action] = ()) -> None:
        """Put another microscope behind the same sockets."""
        self.scope, self.outcomes = scope, []
        self._script = deque(sorted(script, key=lambda action: action.frame))
        self._received.clear()
        self._due.clear()
        self._ask_again_s = 0.0

    def wait_for_agent(self, timeout_s: float) -> bool:
        """Until the agent's heartbeat is heard, it subscribes to frames, and (if wanted) the lease is granted."""
        deadline = self._clock() + timeout_s
        while self._clock() < deadline:
            self._listen(STEP_S)
            if self.alive and self.link.subscribers > 0 and (self.granted or not self.wants_control):
                return True
        return False

    def scan(self) -> Taken:
        """One frame: the operator's hand, the scan (listening meanwhile), the picture, the message."""
        while self._script and self._script[0].frame <= self.scope.frames_taken:
            act(self.scope, self._script.popleft())
        begun_s, begun_ns = self._clock(), self.scope.now_ns
        end_ns = self.scope.begin()
        if not self.lockstep:
            self._let_pass(begun_s, begun_ns, end_ns)
        pixels, optics = self.scope.frame()
        taken = Taken(self.publish(pixels, optics), pixels, optics, self.scope.defocus_m)
        self._listen(0.0)
        if self.lockstep:
            self._wait_for_word(taken.number)
        return taken

    def publish(self, pixels: NDArray[Any], optics: Optics) -> int:
        """One frame onto the wire, under the next number; which it was."""
        number = self.number
        self.number += 1
        for message in self.stream(number, array1.encode(number, pixels, optics)):
            self.link.publish(message)
        return number

    def listen(self, until: Callable[[], bool], timeout_s: float) -> bool:
        """Hear the agent, and keep the lease, until something is so; False when the time was over first."""
        deadline = self._clock() + timeout_s
        self._listen(0.0)
        while not until():
            if self._clock() >= deadline:
                return False
            self._listen(STEP_S)
        return True

    def _let_pass(self, begun_s: float, begun_ns: int, end_ns: int) -> None:
        """Let the scan's time pass, really and virtually."""
        end_s = begun_s + (end_ns - begun_ns) / 1e9 / self.speed
        while (left := end_s - self._clock()) > 0:
            self._listen(min(left, STEP_S))
            virtual_ns = begun_ns + round((self._clock() - begun_s) * self.speed * 1e9)
            self.scope.wait_until(min(virtual_ns, end_ns))

    def _wait_for_word(self, number: int) -> None:
        """Until the agent spoke of this frame and what it asked for has settled; at most a frame time."""
        deadline = self._clock() + max(self.scope.frame_time_s, RETRY_S)
        while self._answered < number and self._clock() < deadline:
            self._listen(STEP_S)
        self._listen(STEP_S)  # what it asks for comes after what it says
        self.scope.wait_until(self.scope.settled_ns)
        self._listen(0.0)

    def _listen(self, timeout_s: float) -> None:
        """One look at the sockets, and at what is due."""
        self.link.wait(timeout_s)
        received_s = self._clock()
        for told in self.link.advice():
            self._hear(told, received_s)
        for reply in self.link.replies():
            self._read_reply(reply)
        while self._received and self._clock() - self._received[0][0] >= self.delay_s:
            self._decide(*self._received.popleft())
        self._acknowledge_settled()
        self._renew_lease()

    def _hear(self, told: Message, received_s: float) -> None:
        was_alive = self.alive
        if told.get("boot") != self._boot:
            self._boot, self.granted, self._ask_again_s = told.get("boot"), False, 0.0
        match told.get("topic"):
            case "status":
                self._heartbeat_s, self.heard = received_s, told
                if not was_alive:
                    self.says("heartbeat heard")
            case "suggestion":
                self._consider(received_s, told)
            case "focus" if isinstance(told.get("frame"), int):
                self._answered = max(self._answered, told["frame"])
        for listener in self.listeners:
            listener(told)

    def _consider(self, received_s: float, told: Message) -> None:
        number = told.get("id")
        if told.get("mode") != "control" or not isinstance(number, str) or number in self._seen:
            return  # in any other mode a suggestion is for people, and nobody waits for an acknowledgement
        self._seen.append(number)
        self._received.append((received_s, told))

    def _decide(self, received_s: float, told: Message) -> None:
        number = str(told["id"])
        if self.alive:
            done = obey(self.scope, told, age_s=self._clock() - received_s)
        else:
            self.says(f"dead-man: no heartbeat for {DEAD_MAN_S:g} s, suggestion {number} not obeyed")
            done = applied(self.scope, Outcome.REJECTED)
        self.outcomes.append((number, done.outcome))
        moved = done.outcome in (Outcome.APPLIED, Outcome.CLIPPED)
        self._due.append((done.t_settled_ns if moved else self.scope.now_ns, told, done))

    def _acknowledge_settled(self) -> None:
        while self._due and self._due[0][0] <= self.scope.now_ns:
            _, told, done = self._due.popleft()
            if self.acknowledges:
                self.link.ask("ack", **acknowledgement(told, done))

    def _renew_lease(self) -> None:
        if not self.wants_control or self._clock() < self._ask_again_s:
            return
        if self.granted and not self.alive:
            self.granted = False
            self.says(f"dead-man: no heartbeat for {DEAD_MAN_S:g} s")
        self._lease_request = self.link.ask("mode", mode="control", lease_s=LEASE_S, controller=self.name)
        self._ask_again_s = self._clock() + (LEASE_S * RENEW if self.granted else RETRY_S)

    def _read_reply(self, reply: Message) -> None:
        if reply.get("id") == self._lease_request:
            if reply.get("ok") is True and not self.granted:
                self.granted, self._ask_again_s = True, self._clock() + LEASE_S * RENEW
            elif reply.get("ok") is not True:
                self.granted = False
        if reply.get("ok") is not True:
            self.says(f"refused: {reply.get('error')}")
