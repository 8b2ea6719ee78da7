"""The command line: one line a command. The only broad net: what is not foreseen becomes exit 1 and a traceback."""

import sys

import typer

from agent.commands.calibrate import app as calibrate
from agent.commands.check import check
from agent.commands.demo import demo
from agent.commands.engines import app as engines
from agent.commands.evaluate import app as evaluate
from agent.commands.events import events
from agent.commands.focus import focus
from agent.commands.keys import keys
from agent.commands.look import look
from agent.commands.microscope import microscope
from agent.commands.replay import replay
from agent.commands.run import run
from agent.commands.variants import variants
from agent.errors import BeamsideError

app = typer.Typer(
    name="beamside",
    help="A real-time agent beside a scanning electron microscope.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command()(check)
app.command()(demo)
app.command()(microscope)
app.command()(replay)
app.command()(look)
app.command()(focus)
app.command()(events)
app.command()(keys)
app.add_typer(engines, name="engines")
app.add_typer(calibrate, name="calibrate")
app.add_typer(evaluate, name="evaluate")
calibrate.command()(variants)


def main() -> None:
    """Errors with a known cause are one sentence and their exit code."""
    try:
        app()
    except BeamsideError as error:
        print(f"beamside: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
