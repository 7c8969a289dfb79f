"""Procedural scenes: exact masks, physical temperatures, smooth motion, and the data set made of them."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeunip.classes import Classes
from edgeunip.errors import DataError, UsageError
from edgeunip.images import read_counts
from edgeunip.scenes import CLASSES, SENSORS, Scene, synthesise
from edgeunip.scenes.climate import draw_climate
from edgeunip.scenes.labels import BICYCLE, BUILDING, GROUND, PERSON, SKY, VEHICLE
from edgeunip.scenes.paths import Path as Motion
from edgeunip.scenes.people import draw_outfit, outlines, riding, walking
from edgeunip.scenes.solids import Solid, extrude
from edgeunip.scenes.view import Canvas, Paint, Pose, View, capsules, paint
from edgeunip.thermal import radiometry_from_json

SIZE = (96, 128)


def digest(*arrays: NDArray[np.generic]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def blank(height: int, width: int) -> Canvas:
    shape = (height, width)
    return Canvas(np.zeros(shape, np.float32), np.zeros(shape, np.uint8), np.full(shape, np.inf, np.float32))


def test_classes_are_the_six_in_order() -> None:
    assert CLASSES.names == ("ground", "sky", "building", "vehicle", "bicycle", "person")
    assert [CLASSES.names[i] for i in (GROUND, SKY, BUILDING, VEHICLE, BICYCLE, PERSON)] == list(CLASSES.names)
    colours = np.array(CLASSES.colours, float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)[~np.eye(6, dtype=bool)]
    assert apart.min() > 70


def test_the_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    one, same, other = (digest(*Scene(seed).render(2.5, *SIZE)) for seed in (7, 7, 8))
    assert one == same
    assert one != other


def test_a_frame_does_not_depend_on_what_was_rendered_before() -> None:
    walked, fresh = Scene(11), Scene(11)
    for t_s in (0.0, 4.0, 1.0):
        walked.render(t_s, *SIZE)
    walked.render(0.0, 60, 80)
    assert digest(*walked.render(3.0, *SIZE)) == digest(*fresh.render(3.0, *SIZE))


def test_global_random_state_is_neither_read_nor_changed() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    one = digest(*Scene(3).render(0.0, *SIZE))
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]
    np.random.seed(0)
    assert digest(*Scene(3).render(0.0, *SIZE)) == one


def test_a_negative_seed_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="The seed must not be negative: -1"):
        Scene(-1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**63),
    t_s=st.floats(0, 1e5),
    height=st.integers(1, 130),
    width=st.integers(1, 170),
    night=st.sampled_from((None, True, False)),
)
def test_any_scene_of_any_size_at_any_time_is_complete_and_physical(
    seed: int, t_s: float, height: int, width: int, night: bool | None
) -> None:
    scene = Scene(seed, night=night)
    celsius, labels = scene.render(t_s, height, width)
    assert celsius.shape == labels.shape == (height, width)
    assert celsius.dtype == np.float32
    assert labels.dtype == np.uint8
    assert labels.max() < len(CLASSES)
    assert np.isfinite(celsius).all()
    assert celsius.min() >= -40 and celsius.max() <= 150
    assert night is None or scene.night == night


@pytest.mark.parametrize("seed", range(6))
def test_masks_are_exact(seed: int) -> None:
    """The picture differs from the empty stage where, and only where, a label says that something is there."""
    scene = Scene(seed)
    celsius, labels = scene.render(1.0, 192, 256)
    stage = scene.stage(192, 256)
    actor = np.isin(labels, (VEHICLE, BICYCLE, PERSON))
    assert actor.any()
    assert np.array_equal(celsius[~actor], stage.celsius[~actor])
    assert np.array_equal(labels[~actor], stage.labels[~actor])
    assert (celsius[actor] != stage.celsius[actor]).mean() > 0.999
    assert not np.isin(stage.labels, (VEHICLE, BICYCLE, PERSON)).any()


def test_rendering_leaves_the_stage_untouched() -> None:
    scene = Scene(5)
    before = digest(scene.stage(*SIZE).celsius, scene.stage(*SIZE).labels)
    celsius, labels = scene.render(0.0, *SIZE)
    celsius[:], labels[:] = 0, 0
    assert digest(scene.stage(*SIZE).celsius, scene.stage(*SIZE).labels) == before


def test_every_class_is_common_and_people_are_not_tiny() -> None:
    shares = []
    for seed in range(50):
        _, labels = Scene(seed).render(2.0, 48, 64)
        shares.append(np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size)
    table = np.array(shares)
    assert ((table > 0.001).mean(axis=0) > 0.75).all()
    assert np.median(table[:, PERSON]) > 0.01
    assert table.mean(axis=0).max() < 0.7


def test_by_night_the_sky_is_cold_and_people_outshine_what_stands_around() -> None:
    skies, margins = [], []
    for seed in range(30):
        celsius, labels = Scene(seed, night=True).render(0.0, 48, 64)
        if (labels == SKY).mean() > 0.02 and (labels == PERSON).mean() > 0.005:
            skies.append(np.median(celsius[labels == SKY]) - np.median(celsius[labels == GROUND]))
            margins.append(np.median(celsius[labels == PERSON]) - np.median(celsius[labels == GROUND]))
    assert len(skies) > 12
    assert np.max(skies) < 0
    assert np.mean(np.array(margins) > 0) > 0.95


def test_by_day_the_ground_is_often_hotter_than_people() -> None:
    hotter = 0
    for seed in range(30):
        celsius, labels = Scene(seed, night=False).render(0.0, 48, 64)
        if (labels == PERSON).any():
            hotter += bool(np.percentile(celsius[labels == GROUND], 90) > np.median(celsius[labels == PERSON]))
    assert 3 <= hotter <= 27


@pytest.mark.parametrize("seed", range(4))
def test_things_move_smoothly(seed: int) -> None:
    """From one frame at 25 Hz to the next few pixels change; over seconds many do."""
    scene = Scene(seed)
    frames = [scene.render(i * 0.04, *SIZE)[1] for i in range(12)]
    steps = [(a != b).mean() for a, b in itertools.pairwise(frames)]
    assert max(steps) < 0.06
    assert (scene.render(3.0, *SIZE)[1] != frames[0]).mean() > 1.5 * np.mean(steps)


def test_a_walker_moves_by_its_speed() -> None:
    climate = draw_climate(np.random.default_rng(0), True)
    outfit = draw_outfit(np.random.default_rng(1), climate)
    view = View(96, 128, 1.2, 0.4, 1.6)
    motion = Motion(0.0, 8.0, 0.0, speed=1.25, reach=6.0, start=-2.0)
    columns = []
    for t_s in np.arange(0, 3, 0.1):
        pose, covered = motion.at(float(t_s))
        canvas = blank(96, 128)
        polygons = outlines(walking(outfit, covered, 1.0), 1.0, pose, view, climate)
        paint(canvas, polygons, Paint(PERSON, pose.z, 0.0, np.zeros((4, 4), np.float32)))
        columns.append(np.nonzero(canvas.labels == PERSON)[1].mean())
    speeds = np.diff(columns) / 0.1
    expected = 1.25 * view.focal_px / 8.0
    assert np.mean(speeds) == pytest.approx(expected, rel=0.03)
    assert np.abs(speeds - expected).max() < 0.9 * expected


@given(
    yaw=st.floats(-4, 4),
    speed=st.floats(0.1, 10),
    radius=st.one_of(st.just(0.0), st.floats(0.5, 5)),
    t_s=st.floats(0, 1000),
)
def test_a_path_is_continuous_and_as_fast_as_it_says(yaw: float, speed: float, radius: float, t_s: float) -> None:
    motion = Motion(1.0, 10.0, yaw, speed, reach=1e5, radius=radius)
    (here, covered), (there, later) = motion.at(t_s), motion.at(t_s + 1e-3)
    assert later - covered == pytest.approx(speed * 1e-3, rel=1e-3)
    step = np.hypot(there.x - here.x, there.z - here.z)
    assert step == pytest.approx(speed * 1e-3, rel=2e-2)
    heading = np.arctan2(there.z - here.z, there.x - here.x)
    assert np.cos(heading - here.yaw) > 0.99


@given(x=st.floats(-20, 20), z=st.floats(-20, 20), yaw=st.floats(-7, 7), p=st.floats(-30, 30), q=st.floats(-30, 30))
def test_a_pose_maps_to_the_world_and_back(x: float, z: float, yaw: float, p: float, q: float) -> None:
    pose = Pose(x, z, yaw)
    there = pose.world(np.array([[p, 1.0, q]]))[0]
    assert there[1] == 1.0
    assert pose.local(there[0], there[2]) == pytest.approx((p, q), abs=1e-9)


def test_the_camera_puts_the_horizon_and_metres_where_they_belong() -> None:
    view = View(100, 201, 1.5, 0.4, 2.0)
    far, level = view.project(np.array([[0.0, 0.0, 1e9], [1.0, 2.0, 15.0]]))
    assert far == pytest.approx((100.0, 40.0), abs=1e-3)
    assert level == pytest.approx((110.0, 40.0))


@pytest.mark.parametrize("yaw", np.linspace(-np.pi, np.pi, 9))
def test_a_solid_covers_exactly_the_hull_of_its_corners(yaw: float) -> None:
    """A negative control for face culling: a box shows as the convex hull of its eight corners, from everywhere."""
    box = Solid(extrude(np.array([(-1.0, 0.0), (-1.0, 1.0), (1.0, 1.0), (1.0, 0.0)]), 0.6, [1, 2, 3, 4], 5.0))
    view, pose = View(120, 160, 1.0, 0.4, 2.5), Pose(0.4, 6.0, float(yaw))
    canvas, hull = blank(120, 160), np.zeros((120, 160), np.uint8)
    polygons = [polygon for _, panel in box.visible(pose, view) for polygon in panel]
    assert 2 <= len(polygons) <= 3
    paint(canvas, polygons, Paint(VEHICLE, 6.0, 0.0, np.zeros((4, 4), np.float32)))
    corners = pose.world(np.array([(f, u, w) for f in (-1, 1) for u in (0.0, 1.0) for w in (-0.6, 0.6)]))
    outline = cv2.convexHull(view.project(corners).astype(np.float32))
    cv2.fillConvexPoly(hull, np.rint(outline).astype(np.int32), VEHICLE)
    assert ((canvas.labels == VEHICLE) != (hull == VEHICLE)).mean() < 0.006
    assert (canvas.labels == VEHICLE).sum() > 300


def test_a_solid_around_the_camera_is_cut_at_the_near_plane() -> None:
    wall = Solid(extrude(np.array([(-9.0, 0.0), (-9.0, 3.0), (9.0, 3.0), (9.0, 0.0)]), 0.2, [1, 2, 3, 4], 5.0))
    view, beside = View(60, 80, 1.0, 0.5, 1.6), Pose(-2.0, 4.0, np.pi / 2)
    polygons = [points for _, panel in wall.visible(beside, view) for points, _ in panel]
    assert polygons and all(np.isfinite(points).all() for points in polygons)
    assert wall.visible(Pose(0.0, -30.0, 0.0), view) == []


@given(radius=st.floats(0.001, 0.3), z=st.floats(1, 30))
def test_a_capsule_is_as_wide_as_its_radius_but_never_vanishes(radius: float, z: float) -> None:
    view = View(100, 100, 1.0, 0.5, 0.0)
    ends = np.array([[[-0.5, 0.0, z], [0.5, 0.0, z]]])
    outline = capsules(view, ends, np.array([[radius, radius]]))[0]
    radius_px = max(100 * radius / z, 0.4)
    assert np.ptp(outline[:, 1]) == pytest.approx(2 * radius_px)
    assert np.ptp(outline[:, 0]) == pytest.approx(100 / z + 2 * radius_px)


def test_what_stands_behind_a_building_is_hidden() -> None:
    square = [(np.array([(2.0, 2.0), (8.0, 2.0), (8.0, 8.0), (2.0, 8.0)]), 30.0)]
    grain = np.zeros((4, 4), np.float32)
    canvas = blank(12, 12)
    canvas.distance[:, :5] = 10.0
    assert paint(canvas, square, Paint(PERSON, 12.0, 0.0, grain)) is not None
    assert (canvas.labels[:, :5] == 0).all() and (canvas.labels[2:9, 5:9] == PERSON).all()
    paint(canvas, square, Paint(PERSON, 9.0, 0.0, grain))
    assert (canvas.labels[2:9, 2:9] == PERSON).all()
    assert canvas.celsius[canvas.labels == PERSON] == pytest.approx(30.0)


def test_bones_keep_their_length_while_riding() -> None:
    outfit = draw_outfit(np.random.default_rng(2), draw_climate(np.random.default_rng(3), None))
    for covered in np.linspace(0, 6, 30):
        thigh, shin = riding(outfit, float(covered))[:2]
        for limb, length in ((thigh, 0.44), (shin, 0.43)):
            assert np.hypot(limb[0][0] - limb[1][0], limb[0][1] - limb[1][1]) == pytest.approx(length, abs=0.02)


def test_fog_takes_contrast() -> None:
    climate = draw_climate(np.random.default_rng(4), True)
    assert climate.seen(climate.air + 20, 0.0) == pytest.approx(climate.air + 20)
    assert climate.seen(climate.air + 20, climate.visibility_m) == pytest.approx(climate.air + 20 / np.e)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("set") / "synthetic"
    synthesise(out, 41, sensor="lepton", seed=3)
    return out


def stems(folder: Path, split: str) -> list[str]:
    return (folder / f"{split}.txt").read_text().split()


def test_a_data_set_has_the_folder_format(written: Path) -> None:
    everything = [stem for split in ("train", "val", "test") for stem in stems(written, split)]
    assert len(everything) == len(set(everything)) == 41
    assert sorted(everything) == sorted(file.stem for file in (written / "images").iterdir())
    assert sorted(everything) == sorted(file.stem for file in (written / "labels").iterdir())
    seen = set()
    for stem in everything:
        counts, _ = read_counts(written / "images" / f"{stem}.png")
        labels, _ = read_counts(written / "labels" / f"{stem}.png")
        assert counts.dtype == np.uint16
        assert labels.dtype == np.uint8
        assert counts.shape == labels.shape == (120, 160)
        seen |= set(np.unique(labels).tolist())
    assert seen == set(range(6))


def test_its_class_list_says_what_counts_mean(written: Path) -> None:
    about = json.loads((written / "classes.json").read_text())
    assert Classes.from_json(about) == CLASSES
    assert radiometry_from_json(about["radiometry"]) == SENSORS["lepton"].radiometry
    assert (about["seed"], about["sensor"]) == (3, "lepton")


def test_no_scene_is_in_two_splits(written: Path) -> None:
    scenes = {split: {stem.split("_")[0] for stem in stems(written, split)} for split in ("train", "val", "test")}
    assert len(set.union(*scenes.values())) == sum(map(len, scenes.values())) == 21
    assert {split: len(found) for split, found in scenes.items()} == {"train": 15, "val": 3, "test": 3}


def test_the_same_seed_writes_the_same_bytes_and_replaces_an_older_set(tmp_path: Path) -> None:
    def content(folder: Path) -> dict[str, bytes]:
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    done: list[int] = []
    synthesise(tmp_path / "a", 10, sensor="lepton", seed=1, progress=done.append)
    synthesise(tmp_path / "b", 12, sensor="lepton", seed=2)
    assert done == list(range(1, 11))
    other = content(tmp_path / "b")
    synthesise(tmp_path / "b", 10, sensor="lepton", seed=1)
    assert content(tmp_path / "a") == content(tmp_path / "b") != other
    assert all(stems(tmp_path / "a", split) for split in ("train", "val", "test"))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "b"]


def test_bare_counts_have_no_radiometry(tmp_path: Path) -> None:
    synthesise(tmp_path / "set", 10, sensor="boson")
    assert json.loads((tmp_path / "set" / "classes.json").read_text())["radiometry"] is None


def test_a_failure_leaves_the_older_set_whole(written: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int) -> None:
        raise Stopped(done)

    synthesise(tmp_path / "set", 10, sensor="lepton")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Stopped):
        synthesise(tmp_path / "set", 10, sensor="lepton", progress=stop)
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_requests_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^Unknown sensor: leptn\. Did you mean lepton\?$"):
        synthesise(tmp_path / "set", 10, sensor="leptn")
    with pytest.raises(UsageError, match=r"^A data set needs at least 10 images: 9$"):
        synthesise(tmp_path / "set", 9)
    with pytest.raises(UsageError, match="The seed must not be negative: -3"):
        synthesise(tmp_path / "set", 10, seed=-3)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(DataError, match=r"Will not replace what is no data set: .*thesis"):
        synthesise(tmp_path / "thesis", 10)
    with pytest.raises(DataError, match="Will not replace what is no data set"):
        synthesise(tmp_path / "thesis" / "chapter.tex", 10)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "precious"
    assert not (tmp_path / "set").exists()
