"""`beamside keys`: a CURVE key pair for this agent or for a controller, and what to put where."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from agent.errors import BeamsideError, UsageError
from agent.wire import curve


def keys(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the two files go.")],
    name: Annotated[str, typer.Option(help="Whose keys: the file name without its ending.")] = "beamside",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Make a CURVE key pair, needed where advice and commands leave this machine."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) or name.startswith("."):
        raise UsageError(f"--name {name!r}: letters, digits, dot, dash and underscore only")
    public, secret = _write(folder, name)
    key = curve.load_secret(secret).public.decode()
    if as_json:
        typer.echo(json.dumps({"name": name, "public": str(public), "secret": str(secret), "public_key": key}))
    else:
        typer.echo(_advice(name, public, secret, key))


def _write(folder: Path, name: str) -> tuple[Path, Path]:
    try:
        return curve.write_pair(folder, name)
    except FileExistsError as error:
        raise BeamsideError(
            f"{error.filename} is there already: choose another --name, or move the old pair"
        ) from error
    except OSError as error:
        raise BeamsideError(f"cannot write keys to {folder}: {error.strerror}") from error


def _advice(name: str, public: Path, secret: Path, key: str) -> str:
    return f"""public key  {public}   {key}
secret key  {secret}   (mode 0600)

If these are the agent's own keys:
  keys.secret = "{secret}"          in the configuration
  keys.allowed = a folder             with one NAME.key of each peer that may connect
  give {public.name} to the controllers: it is their CURVE_SERVERKEY
If they are a controller's:
  copy {public.name} into the agent's keys.allowed folder, keep {secret.name} on the controller
If `{name}` is the microscope that publishes frames over CURVE:
  copy its public file into the agent's keys.allowed folder as {curve.PRODUCER}"""
