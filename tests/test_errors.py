"""Every error is one line that says what, where, why and what to do; a new class must be added to the table here."""

import errno
import pickle
from pathlib import Path

import pytest

from edgeunip import errors
from edgeunip.errors import EdgeunipError, missing_dependency, near, storage_error

EXIT_CODES = {
    errors.EdgeunipError: 1,
    errors.UsageError: 2,
    errors.DataError: 1,
    errors.RunError: 1,
    errors.WeightsError: 1,
    errors.HubError: 1,
    errors.TrainingError: 1,
    errors.BundleError: 1,
    errors.SignatureError: 1,
    errors.ExportError: 1,
    errors.SourceError: 1,
    errors.SinkError: 1,
    errors.SinkClosedError: 1,
    errors.InferenceError: 1,
    errors.MissingDependencyError: 1,
    errors.MemoryLimitError: 75,
    errors.StorageError: 1,
}


def test_the_table_lists_every_error_class() -> None:
    defined = {v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, BaseException)}
    assert defined == set(EXIT_CODES)
    assert all(kind.__doc__ for kind in defined)


@pytest.mark.parametrize("kind", EXIT_CODES, ids=lambda kind: kind.__name__)
def test_message_is_one_line_with_what_where_why_and_remedy(kind: type[EdgeunipError]) -> None:
    error = kind("It broke", where=Path("some/file.png"), why="line one\n\n  line two", remedy="Mend it.")
    assert str(error) == "It broke: some/file.png (line one line two). Mend it."
    assert (error.what, error.where, error.remedy) == ("It broke", Path("some/file.png"), "Mend it.")
    assert error.exit_code == EXIT_CODES[kind]
    assert str(kind("It broke")) == "It broke"
    assert isinstance(error, EdgeunipError)


@pytest.mark.parametrize("kind", EXIT_CODES, ids=lambda kind: kind.__name__)
def test_errors_survive_a_process_boundary(kind: type[EdgeunipError]) -> None:
    error = kind("It broke", where="here", why="that", remedy="Mend it.")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind and str(copy) == str(error)
    assert (copy.what, copy.where, copy.why, copy.remedy) == ("It broke", "here", "that", "Mend it.")


def test_falsy_places_and_causes_are_shown() -> None:
    assert str(EdgeunipError("Bad value", where=0, why=0)) == "Bad value: 0 (0)"


def test_names_are_shown_as_they_are_and_cannot_steer_a_terminal() -> None:
    assert str(EdgeunipError("Bad", where="two  blanks.png")) == "Bad: two  blanks.png"
    assert str(EdgeunipError("Bad", where="a\x1b[31mred\nb")) == r"Bad: a\x1b[31mred b"
    undecodable = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert str(EdgeunipError("Bad", where=undecodable)) == r"Bad: caf\udce9.png"
    assert str(EdgeunipError("Bad", where="Wärmebild.png")) == "Bad: Wärmebild.png"


def test_a_huge_cause_does_not_hide_the_remedy() -> None:
    message = str(EdgeunipError("Bad", where="x" * 10_000, why="y" * 1_000_000, remedy="Mend it."))
    assert len(message) < 1300 and message.endswith("yyy). Mend it.")


@pytest.mark.parametrize(
    ("code", "reason", "remedy"),
    [
        (errno.ENOSPC, "No space left on device", "Free some space"),
        (errno.EACCES, "Permission denied", "Choose a folder you may write to"),
        (errno.EROFS, "Read-only file system", "The file system is read-only"),
        (errno.EDQUOT, "Disk quota exceeded", "The disk quota is used up"),
        (errno.EIO, "Input/output error", "The disk failed"),
    ],
)
def test_storage_errors_name_file_reason_and_remedy(code: int, reason: str, remedy: str) -> None:
    message = str(storage_error(OSError(code, "text of the C library"), Path("runs/a")))
    assert message.startswith(f"Cannot write: runs/a ({reason}). {remedy}")


def test_storage_error_without_a_number() -> None:
    assert str(storage_error(OSError("odd"), "x")) == "Cannot write: x (odd)"
    assert str(storage_error(OSError(errno.ENAMETOOLONG, ""), "x")) == "Cannot write: x (File name too long)"


def test_missing_dependency_names_the_extra() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        __import__("edgeunip_no_such_vendor.sub")
    found = missing_dependency(caught.value, "edgeunip_no_such_vendor", "openvino")
    assert isinstance(found, errors.MissingDependencyError)
    assert str(found) == ("The package edgeunip_no_such_vendor is not installed. Run: pip install 'edgeunip[openvino]'")
    nested = ModuleNotFoundError("No module named 'google'", name="google")
    assert isinstance(missing_dependency(nested, "google.protobuf", "x"), errors.MissingDependencyError)


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'other'", name="other"),
        ModuleNotFoundError("no name at all"),
        ModuleNotFoundError("No module named 'vendor._parts'", name="vendor._parts"),
        ModuleNotFoundError("No module named 'vendors'", name="vendors"),
    ],
)
def test_foreign_import_errors_pass_unchanged(error: ModuleNotFoundError) -> None:
    assert missing_dependency(error, "vendor", "openvino") is error


def test_near_suggests_or_lists() -> None:
    known = ["percentile", "plateau", "clahe", "window"]
    assert near("percentil", known) == "Did you mean percentile?"
    assert near("zzz", known) == "Known: clahe, percentile, plateau, window."
    assert near("jetson-orin-nan", ["jetson-orin-nano", "jetson-orin-nx"]).startswith("Did you mean jetson-orin-nano")
    assert near("anything", iter(["one", "two"])) == "Known: one, two."
