"""The camera models that are known, those the user added included, and which of them a device is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgeunip.devices import lepton, profile_files
from edgeunip.devices.profile import Profile, frame, unpack
from edgeunip.errors import UsageError, near
from edgeunip.thermal import Linear

__all__ = ["PROFILES", "Profile", "find", "frame", "known", "match", "unpack"]

_KELVIN = 273.15

PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "lepton",
            "FLIR Lepton 2.x or 3.x on a PureThermal board with TLinear on: centikelvin",
            Linear(0.01, -_KELVIN),
            usb=("1e4e:0100",),
            cards=("PureThermal",),
            formats=("Y16 ",),
            sizes=((122, 160), (120, 160), (63, 80), (60, 80)),
            telemetry=lepton.ROWS,
            layout="lepton",
            rate_hz=8.7,
            shutter="freezes",
            range_c=(-40.0, 380.0),
            notes=(
                "Without TLinear the counts are no temperatures; then, and where telemetry says so, degC is refused.",
                "Telemetry rows tell when the shutter is closed; switch them on if the board can.",
                "The board shows two video nodes, of which one gives no video.",
                "Within 5 degC is what the maker promises.",
            ),
        ),
        Profile(
            "lepton-raw",
            "FLIR Lepton without TLinear: counts without a temperature",
            formats=("Y16 ",),
            sizes=((122, 160), (120, 160), (63, 80), (60, 80)),
            telemetry=lepton.ROWS,
            layout="lepton",
            rate_hz=8.7,
            shutter="freezes",
        ),
        Profile(
            "tc001",
            "TOPDON TC001, InfiRay P2 Pro and clones: 1/64 K, 256x192 below a picture of the same size",
            Linear(1 / 64, -_KELVIN),
            usb=("0bda:5830", "0bda:5840"),
            formats=("YUYV",),
            sizes=((384, 256),),
            packed=True,
            split=(384, 256),
            rate_hz=25.0,
            shutter="freezes",
            range_c=(-40.0, 220.0),
            notes=(
                "Hotter than about 220 degC it saturates without saying so; its high range needs a command of the "
                "maker's that is not sent.",
                "Any program or virtual machine that converts the video on the way destroys the temperatures.",
                "Its USB id is that of other makers' webcams, too; the size of the frames tells them apart.",
            ),
        ),
        Profile(
            "tc002c",
            "TOPDON TC002C Duo in radiometric mode: 1/16 K",
            Linear(1 / 16, -_KELVIN),
            formats=("YUYV",),
            sizes=((484, 512),),
            packed=True,
            shutter="freezes",
            notes=(
                "Choose the radiometric mode in the camera.",
                "Where its telemetry rows stand is not known well enough to cut them off: they show as pixels.",
            ),
        ),
        Profile(
            "boson",
            "FLIR Boson 320 or 640, Y16 before its gain control: counts without a temperature",
            usb=("09cb:4007",),
            cards=("Boson",),
            formats=("Y16 ",),
            sizes=((512, 640), (256, 320), (514, 640)),
            telemetry={(514, 640): 2},
            shutter="freezes",
            notes=(
                "A Boson-R with TLinear on has temperatures: read its scale from the camera and keep a profile with "
                "edgeunip cameras probe --point.",
                "60 or 8.6 frames a second, according to where it is sold.",
            ),
        ),
        Profile(
            "tau2",
            "FLIR Tau2, 14 bits: counts without a temperature",
            formats=("Y16 ", "Y14 "),
            sizes=((512, 640), (256, 324), (256, 336)),
            shutter="freezes",
            notes=("Behind a TeAx grabber it is no video device: feed it in through unix:SOCKET.",),
        ),
        Profile(
            "seek",
            "Seek Compact or CompactPro through v4l2loopback: counts without a temperature",
            cards=("Seek", "seek"),
            formats=("Y16 ",),
            sizes=((156, 206), (156, 208), (240, 320)),
            shutter="freezes",
            notes=(
                "It is no video device of its own; its viewer must feed the loopback with 16-bit frames.",
                "It gives no absolute temperature, shuts about every 15 s, and needs a map of bad pixels and a flat "
                "field: edgeunip cameras badpixels, edgeunip cameras flatfield.",
            ),
        ),
        Profile(
            "flirone",
            "FLIR ONE through its v4l2loopback driver: counts without a temperature",
            cards=("FLIR ONE", "flirone", "FLIROne"),
            formats=("Y16 ", "GREY"),
            sizes=((120, 160), (60, 80)),
            rate_hz=8.7,
            shutter="freezes",
            notes=("Its own calibration cannot be stopped.",),
        ),
        Profile(
            "mlx90640",
            "Melexis MLX90640 on I2C through the kernel's video-i2c: counts, big-endian",
            cards=("I2C ",),
            formats=("Y16-BE",),
            sizes=((26, 32), (24, 32)),
            telemetry={(26, 32): 2},
            shutter="none",
            notes=(
                "The kernel hands out the sensor's memory as it is; without its calibration there is no degC.",
                "A frame is two checkerboard halves, taken one after the other.",
            ),
        ),
        Profile("gray8", "any camera with 8-bit pictures: no temperature", formats=("GREY", "YUYV", "UYVY", "NV12")),
        Profile("raw", "any camera: counts as they come, without a temperature"),
    )
}


def known() -> dict[str, Profile]:
    """Return all profiles by name; one of the user's stands in for ours of the same name.

    Raises:
        UsageError: a file of the user's is no profile.
    """
    return PROFILES | {profile.name: profile for profile in profile_files.read_all()}


def find(name: str) -> Profile:
    """Return the profile called ``name``.

    Raises:
        UsageError: there is none, or a file of the user's is no profile.
    """
    profiles = known()
    try:
        return profiles[name]
    except KeyError:
        raise UsageError("Unknown camera profile", where=name, remedy=near(name, profiles)) from None


def match(
    *, usb: str = "", card: str = "", sizes: Iterable[tuple[int, int]] = (), profiles: Mapping[str, Profile]
) -> Profile | None:
    """Return the profile of a device; None where it is none that is known.

    A USB id or a card's name alone is not enough: bridges are sold to many makers. One of the frame sizes must fit,
    where the profile names any.

    Args:
        usb: ``vendor:product``, empty where the device has none.
        card: what the driver calls it.
        sizes: (rows, columns) it offers, in any format.
        profiles: those to choose from; the last that fits wins, so that the user's go before ours.
    """
    offered = set(sizes)
    found = [
        profile
        for profile in profiles.values()
        if (usb.lower() in profile.usb or (profile.cards and card.startswith(profile.cards)))
        and (not profile.sizes or offered & set(profile.sizes))
    ]
    return found[-1] if found else None
