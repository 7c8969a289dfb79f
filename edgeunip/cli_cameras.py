"""The commands on cameras: list, probe, profiles, bad pixels, flat field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeunip import address
from edgeunip.defaults import say
from edgeunip.options import Json

if TYPE_CHECKING:
    from edgeunip.devices.calibrate import Scene
    from edgeunip.devices.probe import Findings
    from edgeunip.devices.profile import Profile
    from edgeunip.devices.v4l2 import Node

app = typer.Typer(
    help="List cameras, probe an unknown one, replace its bad pixels.",
    invoke_without_command=True,
    rich_markup_mode=None,
)

Source = Annotated[
    str,
    typer.Argument(
        help="/dev/videoN, unix:SOCKET, rtsp://.., a recording, an image, or a folder of images. @FILE or $NAME reads "
        "an address with a password from there.",
        callback=address.resolve,
    ),
]
Camera = Annotated[str | None, typer.Option(help="Camera profile. Default: the one that matches.")]
Frames = Annotated[int, typer.Option(help="How many frames of a uniform scene to look at.", min=2)]
For = Annotated[
    str | None,
    typer.Option("--for", help="Whose correction it is: the camera's address. Default: SOURCE, by its stable name."),
]


@app.callback()
def cameras(context: typer.Context, json: Json = None) -> None:
    """List the video nodes: formats, USB ids, the matching profile, and what is wrong with each."""
    if context.invoked_subcommand is None:
        list_cameras(json)


@app.command("list")
def list_cameras(json: Json = None) -> None:
    """List the video nodes: formats, USB ids, the matching profile, and what is wrong with each."""
    from edgeunip import defaults
    from edgeunip.devices.recognise import profile_of
    from edgeunip.devices.v4l2 import list_nodes

    found = [(node, profile_of(node)) for node in list_nodes()]
    if json != "-":
        for node, profile in found:
            print("\n".join(_describe_node(node, profile)))
        if not found:
            print("No video node. Plug a camera in; in a container, pass it in: --device /dev/video0.")
    defaults.write_json([_node_json(node, profile) for node, profile in found], json)


@app.command()
def profiles(
    name: Annotated[
        str | None, typer.Argument(help="Show this one in full, as a file to start one's own from.")
    ] = None,
) -> None:
    """List the camera profiles, the user's own included."""
    from edgeunip.devices import profile_files
    from edgeunip.devices import profiles as database

    if name:
        print(profile_files.write(database.find(name)), end="")
        return
    for profile in database.known().values():
        scale = f"{profile.radiometry.scale:.6g} K" if profile.radiometry else "counts"
        print(f"{profile.name:<12} {scale:<12} {profile.about}")
    say(f"Your own go into {profile_files.folder()}, one NAME.toml each")


@app.command()
def probe(
    source: Source,
    save: Annotated[str | None, typer.Option(metavar="NAME", help="Keep the profile under this name.")] = None,
    point: Annotated[
        list[str] | None, typer.Option(metavar="COUNTS=DEGC", help="A surface of known temperature; give two.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to look at a live camera.", min=0.1)] = 5.0,
    json: Json = None,
) -> None:
    """Look at an unknown camera's frames, and suggest a profile."""
    from edgeunip import defaults
    from edgeunip.devices import probe as probing
    from edgeunip.devices import profile_files

    scale = probing.calibrate(point) if point else None
    wire = probing.look(source, seconds=seconds)
    suggested = probing.suggest(wire.findings, save or "mine", usb=wire.usb, code=wire.code, radiometry=scale)
    if json != "-":
        print("\n".join(describe(wire.findings)))
        print(f"\n{wire.known}\n" if wire.known else "\nNo profile matches. Suggested:\n")
        print(profile_files.write(suggested), end="")
        if suggested.radiometry is None:
            for fitting in wire.findings.scales:
                scale_k = probing.SCALES[fitting]
                print(f"# If it measures temperature: radiometry = {{scale = {scale_k}, offset = -273.15}}")
    defaults.write_json({**wire.findings.to_json(), "profile": profile_files.write(suggested)}, json)
    if save:
        shown = address.redact(source)
        say(f"Saved as {profile_files.save(suggested)}. Next: edgeunip stream {shown} --camera {save}")


@app.command()
def badpixels(source: Source, camera: Camera = None, frames: Frames = 64, owner: For = None) -> None:
    """Find the bad pixels before a uniform scene (the lens cap, a wall), and have them replaced from now on."""
    from edgeunip.devices import calibrate

    scene = calibrate.take_scene(source, profile=camera, frames=frames)
    found, path = calibrate.keep_bad_pixels(scene, owner or scene.key)
    for kind, mask in (("stuck", found.stuck), ("off", found.off), ("noisy", found.noisy)):
        print(f"{kind:<6} {int(mask.sum()):>5}")
    print(f"{int(found.bad.sum())} bad pixels of {found.bad.size}, by {_scene(scene)}, noise {found.noise:.1f} counts")
    say(f"Kept in {path}")


@app.command()
def flatfield(
    source: Source,
    camera: Camera = None,
    frames: Frames = 64,
    owner: For = None,
    remove: Annotated[bool, typer.Option("--remove", help="Forget it instead.")] = False,
) -> None:
    """Take a flat field before a uniform scene, and have it subtracted from now on."""
    from edgeunip.devices import calibrate

    scene = calibrate.take_scene(source, profile=camera, frames=1 if remove else frames)
    flat, path = calibrate.keep_flat_field(scene, owner or scene.key, remove=remove)
    if flat is None:
        say(f"Removed from {path}")
        return
    print(f"{flat.min()}..{flat.max()} counts, standard deviation {flat.std():.1f}, by {_scene(scene)}")
    say(f"Kept in {path}")


def describe(found: Findings) -> list[str]:
    """Return what a probe found, in lines for people."""
    told = found.telemetry
    lines = [
        f"frames     {found.width}x{found.height}, {found.dtype}, {found.frames} looked at, {found.repeats} repeated, "
        f"{found.lost} lost",
        f"counts     {found.lowest}..{found.highest}, {found.bits} bits used, noise {found.noise:g} counts",
        f"bytes      {'exchanged: profile key swapped = true' if found.swapped else 'in order'}",
        f"halves     {'a picture above, counts below' if found.split else 'one picture'}",
        f"rate       {f'{found.rate_hz:.1f} frames a second' if found.rate_hz else 'not measured: no live source'}",
    ]
    if told is None:
        lines.append("telemetry  none")
    else:
        scale = f"{told.tlinear_k:g} K a count" if told.tlinear_k else "TLinear off: no temperature"
        counter = "rising" if found.telemetry_rises else "NOT rising"
        lines.append(
            f"telemetry  Lepton, frame counter {counter}, sensor at {told.sensor_c:.1f} degC, {scale}, "
            f"last correction {told.since_ffc_ms / 1000:.0f} s ago"
        )
    fits = ", ".join(found.scales) or "none of the usual ones: bare counts"
    return [*lines, f"scale      would be a scene of -30 to 120 degC under: {fits}"]


def _scene(scene: Scene) -> str:
    return f"{len(scene.counts)} frames of {scene.counts.shape[2]}x{scene.counts.shape[1]}"


def _describe_node(node: Node, profile: Profile | None) -> list[str]:
    from edgeunip.devices.recognise import usb_id

    lines = [f"{node.path}  {node.card or 'unknown'}  {usb_id(node)}".rstrip()]
    if node.identity.by_id:
        lines.append(f"    stable name  {node.identity.by_id}")
    for offer in node.offers:
        sizes = ", ".join(f"{size.width}x{size.height}{_rates(size.rates_hz)}" for size in offer.sizes)
        lines.append(f"    {offer.code.strip():<7}      {sizes or 'any size'}")
    if node.problem:
        lines.append(f"    problem      {node.problem}")
    elif profile:
        lines += [
            f"    profile      {profile.name}: {profile.about}",
            *(f"    note         {n}" for n in profile.notes),
        ]
    else:
        lines.append(f"    profile      none matches; find out more with: edgeunip cameras probe {node.path}")
    return lines


def _rates(rates_hz: tuple[float, ...]) -> str:
    return f" at {'/'.join(f'{rate:g}' for rate in rates_hz)} Hz" if rates_hz else ""


def _node_json(node: Node, profile: Profile | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(node), "profile": profile.name if profile else None}
