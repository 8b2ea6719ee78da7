"""tmp"""


def draw(done, path): ...
