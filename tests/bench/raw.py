"""A bare pyzmq subscriber that says when the last message came. Usage: python -m tests.bench.raw FRAMES DONE"""

import sys

import zmq


def main() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    frames, done = context.socket(zmq.SUB), context.socket(zmq.PUSH)
    frames.setsockopt(zmq.RCVHWM, 200)  # as the agent's
    frames.setsockopt(zmq.SUBSCRIBE, b"")
    done.connect(sys.argv[2])
    frames.connect(sys.argv[1])
    while True:
        header, _ = frames.recv_multipart(copy=False)
        if b'"inspect":true' in header.bytes:
            done.send(b"")


if __name__ == "__main__":
    main()
