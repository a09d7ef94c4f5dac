"""Lines of the log, as another program reads them."""

import json
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from kvsecure.model.secret import Secret
from kvsecure.telemetry.log import Format, Level, LogSettings, log, set_up, statistics
from kvsecure.telemetry.sink import OutputError

# 2026-11-21T10:46:03.120000Z
NOW_NS = 1_795_257_963_120_000_000


@pytest.fixture(autouse=True)
def _logging_left_as_found() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the log is to be written."""
    return tmp_path / "kvsecure.log"


def start(path: Path, form: Format = Format.JSON, level: Level = Level.INFO) -> None:
    """Begin to log to a file at a fixed time."""
    set_up(
        LogSettings(level=level, format=form, outputs=[str(path)]),
        now_ns=lambda: NOW_NS,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the log's lines, parsed."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_log_line_has_etcds_keys_in_etcds_order(path: Path) -> None:
    """One JSON object: level, ts, caller, msg, then what else there is."""
    start(path)

    log("server").info("ready to serve client requests", port=2379)

    (line,) = lines(path)
    assert list(line) == ["level", "ts", "caller", "msg", "logger", "port"]
    assert line["level"] == "info"
    assert line["ts"] == "2026-11-21T10:46:03.12Z"
    assert line["caller"].startswith("telemetry/test_telemetry_log.py:")
    assert line["msg"] == "ready to serve client requests"
    assert (line["logger"], line["port"]) == ("server", 2379)


@pytest.mark.parametrize(
    ("now_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (999_999_999, "1970-01-01T00:00:00.999999Z"),
    ],
)
def test_log_time_is_gos_layout_without_trailing_zeros(path: Path, now_ns: int, text: str) -> None:
    """Microseconds in UTC, as 2006-01-02T15:04:05.999999Z0700 prints them."""
    set_up(LogSettings(outputs=[str(path)]), now_ns=lambda: now_ns)

    log("a").info("b")

    assert lines(path)[0]["ts"] == text


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("debug", "debug"),
        ("info", "info"),
        ("warning", "warn"),
        ("error", "error"),
        ("critical", "fatal"),
    ],
)
def test_log_levels_have_etcds_names(path: Path, method: str, name: str) -> None:
    """What structlog calls warning and critical, etcd calls warn and fatal."""
    start(path, level=Level.DEBUG)

    getattr(log("a"), method)("b")

    assert lines(path)[0]["level"] == name


def test_log_level_leaves_out_what_is_below(path: Path) -> None:
    """A line below the level is not written."""
    start(path, level=Level.WARN)

    log("a").info("quiet")
    log("a").warning("loud")

    assert [line["msg"] for line in lines(path)] == ["loud"]


@pytest.mark.parametrize("form", list(Format))
def test_log_never_shows_a_secret(path: Path, form: Format) -> None:
    """Neither as a field, nor bound, nor inside another value, nor in the message's arguments."""
    start(path, form)
    secret = Secret(b"hunter2")

    log("a").bind(bound=secret).info(
        "login %s", secret, password="hunter2", headers={"authorization": "hunter2"}, key=b"hunter2"
    )

    text = path.read_text(encoding="utf-8")
    assert text.count("<secret>") == 4
    assert "hunter2" not in text


@pytest.mark.parametrize("form", list(Format))
def test_log_text_cannot_forge_a_line(path: Path, form: Format) -> None:
    """Line ends and escape sequences in a message or a field stay inside their line."""
    start(path, form)

    log("a\x1b[2J").info('b\n{"level":"info"}\x1b[2J', c="\r\n\x1b]0;x\x07\u2028")

    content = path.read_bytes()
    assert content.count(b"\n") == 1
    assert content.endswith(b"\n")
    assert b"\x1b" not in content
    assert b"\r" not in content


def test_log_fields_cannot_replace_etcds_keys(path: Path) -> None:
    """A field that is called like one of the four gets another name."""
    start(path)

    log("a").info("b", msg="c", ts="d", caller="e")

    (line,) = lines(path)
    assert line["msg"] == "b"
    assert (line["msg_"], line["ts_"], line["caller_"]) == ("c", "d", "e")


def test_log_console_line_is_columns(path: Path) -> None:
    """Time, level, place and message, separated by tabs, then the rest as JSON."""
    start(path, Format.CONSOLE)

    log("server").info("hello", port=1)

    time, level, caller, message, rest = path.read_text(encoding="utf-8").strip().split("\t")
    assert (time, level, message) == ("2026-11-21T10:46:03.12Z", "info", "hello")
    assert caller.startswith("telemetry/test_telemetry_log.py:")
    assert json.loads(rest) == {"logger": "server", "port": 1}


def test_log_exception_has_its_type_and_its_place(path: Path) -> None:
    """An exception's text and stack are fields of the same line."""
    start(path)

    try:
        int("broken\nthing")
    except ValueError:
        log("a").exception("stopping")

    (line,) = lines(path)
    assert line["level"] == "error"
    assert line["error"].startswith("ValueError: invalid literal")
    assert "test_log_exception_has_its_type_and_its_place" in line["stacktrace"]


def test_log_exception_may_be_handed_over(path: Path) -> None:
    """An exception, or what sys.exc_info gave, is as good as the current one."""
    start(path)
    failure = ValueError("bad")

    log("a").error("b", exc_info=failure)
    log("a").error("b", exc_info=(ValueError, failure, None))
    log("a").error("b", exc_info=True)

    assert [line.get("error") for line in lines(path)] == ["ValueError: bad"] * 2 + [None]


def test_log_takes_what_libraries_say(path: Path) -> None:
    """Warnings through `logging` are lines like all others; less than that is noise."""
    start(path)

    logging.getLogger("asyncio").warning("slow %s", "callback")
    logging.getLogger("asyncio").info("noise")

    (first,) = lines(path)
    assert (first["level"], first["logger"], first["msg"]) == ("warn", "asyncio", "slow callback")
    assert first["caller"].startswith("telemetry/test_telemetry_log.py:")


@pytest.mark.parametrize("arguments", [("text",), ({"a": 1},), ()])
def test_log_takes_what_libraries_say_badly(path: Path, arguments: tuple[object, ...]) -> None:
    """A format that does not fit its arguments is written as it is."""
    start(path)
    careless = logging.getLogger("careless")
    careless.propagate = False
    ours = [
        handler
        for handler in logging.getLogger().handlers
        if type(handler).__module__ == "kvsecure.telemetry.log"
    ]
    careless.handlers = ours

    careless.log(35, "%(b)d", *arguments)

    (line,) = lines(path)
    assert (line["level"], line["logger"], line["msg"]) == ("warn", "careless", "%(b)d")


def test_log_set_up_twice_writes_once(path: Path, tmp_path: Path) -> None:
    """The later settings replace the earlier ones, for libraries too."""
    start(path)
    start(tmp_path / "second.log")

    log("a").info("b")
    logging.getLogger("c").warning("d")

    assert lines(path) == []
    assert [line["msg"] for line in lines(tmp_path / "second.log")] == ["b", "d"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_log_file_is_for_its_owner_only(path: Path, umask: int) -> None:
    """A log file is 0600 from its creation, whatever the umask."""
    before = os.umask(umask)
    try:
        start(path)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_log_file_that_was_open_to_others_is_closed_to_them(path: Path) -> None:
    """A file from earlier is appended to, and loses the permissions that it should not have."""
    path.write_text("{}\n", encoding="utf-8")
    path.chmod(0o644)
    start(path)

    log("a").info("b")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(lines(path)) == 2


def test_log_output_that_cannot_be_opened_is_an_error_that_names_it(
    path: Path, tmp_path: Path
) -> None:
    """A missing directory, a directory, a link: the log stays what it was."""
    start(path)
    link = tmp_path / "link.log"
    link.symlink_to(path)

    for output in (tmp_path / "absent" / "a.log", tmp_path, link):
        with pytest.raises(OutputError, match=str(output)):
            set_up(LogSettings(outputs=[str(output)]))
    log("a").info("still here")

    assert [line["msg"] for line in lines(path)] == ["still here"]


def test_log_goes_to_every_output_once(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`default` is standard error, and naming an output twice does not double its lines."""
    set_up(LogSettings(outputs=["default", "stderr", "stdout", str(path), str(path)]))

    log("a").info("b")

    out, err = capfd.readouterr()
    assert len(out.splitlines()) == len(err.splitlines()) == len(lines(path)) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_log_line_that_cannot_be_written_is_counted_as_lost(path: Path) -> None:
    """A full disk costs lines, never the server."""
    set_up(LogSettings(outputs=["stdout"]))
    saved = os.dup(1)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        os.dup2(full, 1)
        log("a").info("b")
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(full)

    assert (statistics().lines, statistics().lost) == (1, 1)
