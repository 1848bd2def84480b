"""Processes that start at once: forks of one Python that has loaded what earlier ones of their kind loaded.

What a test starts is a process as any other: its own memory, pid, pipes, environment, working folder, signals and exit
code. But torch alone takes a new process 1.3 s of CPU, transformers 2 s, DVC 1 s: hundreds of starts were a third of
the tests' time. Graftline's own modules are kept from this checkout; where PYTHONPATH names another, from that one, as
long as the next process is of the same and none of its files has changed. What a process loads and when, and whatever a
terminal or a shell starts, is tested with new processes. The workers that torchrun starts in a fork are forks as well.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import json
import os
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from multiprocessing import util
from pathlib import Path
from types import ModuleType
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_LARGEST, _MOST = 1 << 20, 100
"""How long a message may be, and how many ends of pipes and files may come with it."""
_AT_START = ("PYTHON", "HF_", "TRANSFORMERS_")
"""How the names of variables begin that are read when Python or a library is loaded."""
_LATER = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONUTF8"}
"""Those of them that a fork heeds, or does anyway: its text is UTF-8."""
_STARTERS = ("torch.distributed.run", "graftline.pipelines.trainjob.pod")
"""Modules that start torchrun's workers: these are forks too."""
STARTS = "FORKED_STARTS"
"""The variable that says so of any other process: what it starts by `python -m graftline.components...` is a fork."""
OFFLINE = """
import os, sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        os.write(2, f"{event} {arguments}: a network was asked\\n".encode())
        os._exit(9)
sys.addaudithook(hook)
"""
"""What a process does first that must not ask a network. (`HF_HUB_OFFLINE` is read when a library is loaded: no fork
would heed it.)"""
_FIRST = ["dvc.repo", "kfp.dsl"]
_OWN_FIRST = [
    "torch._dynamo",
    *(f"graftline.components.{name}.{name}" for name in ("validate", "pretrain", "finetune", "evaluate", "publish")),
    "graftline.federated.loaded",
]
"""What most of those that are forked need: it is loaded before the first of them, not by it and then once more."""
_one_at_a_time = threading.RLock()


@dataclass(frozen=True)
class Forker:
    """The process that forks for this one: where it is asked, and the folder of lists of what it should load."""

    connection: socket.socket
    lists: Path


_own_forker: list[Forker] = []
"""In a fork that starts processes: what forks for it, as it was when it began, with one thread."""
_newest: dict[str, Forker] = {}
"""What forks for the PYTHONPATH of another checkout: the last one."""
_kept: dict[str, tuple[int, int]] = {}
"""Where the code of another checkout is kept: the time and size of each of its files when it was loaded."""
_path_lists: list[Path] = []
"""Where a fork lists what it has loaded from its PYTHONPATH, for the next one of the same."""
_known: set[str] = set()
"""What need not be listed: modules that are there already, or that were asked for and cannot be loaded so."""


_execute: Any = subprocess.Popen._execute_child  # type: ignore[attr-defined]
_spawn: Any = util.spawnv_passfds  # type: ignore[attr-defined]


class Popen(subprocess.Popen[Any]):
    """`[sys.executable, "-c" or "-m" or FILE, ...]` as a fork."""

    def _execute_child(self, *given: Any) -> None:
        """Do as `subprocess.Popen._execute_child` of Python 3.11: start the process, close the child's ends."""
        args, _, preexec_fn, _, pass_fds, cwd, env, _, _, shell, *pipes, _, _, _, _, _, session, _ = given
        if _read_at_start(os.environ if env is None else env) != _READ:
            _execute(self, *given)  # a new process, for a fork would not heed them
            return
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = pipes
        assert os.fsdecode(args[0]) == sys.executable and not (shell or preexec_fn or pass_fds), "only Python is forked"
        wanted = {
            "arguments": [os.fsdecode(argument) for argument in args[1:]],
            "cwd": os.fspath(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "session": session,
        }
        self.pid = _fork(wanted, [end if end != -1 else n for n, end in enumerate((p2cread, c2pwrite, errwrite))])
        self._child_created = True
        for end, other in ((p2cread, p2cwrite), (c2pwrite, c2pread), (errwrite, errread)):
            if end != -1 and other != -1:
                os.close(end)
        if (nowhere := getattr(self, "_devnull", None)) is not None:
            os.close(nowhere)


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: of for name, of in environment.items() if name.startswith(_AT_START) and name not in _LATER}


_READ = _read_at_start(os.environ)


def listing(command: list[str]) -> list[str]:
    """Return the command for a new process, with this checkout's code, after which forks need not load what it has."""
    return [command[0], __file__, str(_forker(own=True).lists), *command[1:]]


def run(
    command: list[str], *, input: Any = None, timeout: float | None = None, **how: Any
) -> subprocess.CompletedProcess[Any]:
    """Do as `subprocess.run` with `capture_output=True`, with a fork."""
    if input is not None:
        how["stdin"] = subprocess.PIPE
    with Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how) as process:
        try:
            out, error = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, error)


def spawn(executable: str, arguments: list[str], ends: list[int]) -> int:
    """Do as `multiprocessing.util.spawnv_passfds`; a worker that is to be spawned is a fork. It is as new to it."""
    if arguments[-1] != "--multiprocessing-fork" or _read_at_start(os.environ) != _READ:
        return int(_spawn(executable, arguments, ends))
    wanted = {
        "arguments": arguments[arguments.index("-c") :],
        "cwd": str(Path.cwd()),
        "environment": dict(os.environ),
        "session": False,
        "numbers": (numbers := sorted(set(ends))),
    }
    return _fork(wanted, [0, 1, 2, *numbers])


def _fork(wanted: dict[str, Any], ends: list[int]) -> int:
    """Ask for a process with these ends as 0, 1, 2 and `numbers`; return its pid. It is this process's child."""
    with _one_at_a_time:
        same = wanted["environment"].get("PYTHONPATH") == os.environ.get("PYTHONPATH")
        connection = (_own_forker[0] if _own_forker and same else _forker_for(wanted)).connection
        _keep_orphans(True)
        try:
            socket.send_fds(connection, [json.dumps(wanted).encode()], ends)
            answer = connection.recv(100)
        finally:
            _keep_orphans(False)
    assert answer, "the process that forks has died; its error is above"
    return int(answer)


def _forker_for(wanted: dict[str, Any]) -> Forker:
    """Return what forks such a process: for another checkout a fork of the one without Graftline, the last such alone.

    What it keeps of that checkout, each process would load anew otherwise: 0.1 to 0.4 s of CPU.
    """
    path = wanted["environment"].get("PYTHONPATH", "")
    if not path or wanted["arguments"][0] == "-I":
        return _forker(own=not path and wanted["arguments"][0] != "-I")
    if not Path(path.split(os.pathsep)[0], "graftline").is_dir():
        return _forker(own=False)
    libraries = _forker(own=False)
    if path not in _newest or any(libraries.lists.glob("*.json")):  # what it has to load, it loads for all
        for before in _newest.values():
            before.connection.close()
        _newest.clear()
        (ours, theirs), lists = _connected(), _lists_of(path)
        asked = json.dumps({"path": path, "lists": str(lists)}).encode()
        socket.send_fds(libraries.connection, [asked], [theirs.fileno()])
        theirs.close()
        _newest[path] = Forker(ours, lists)
    return _newest[path]


@cache
def _lists_of(path: str) -> Path:
    lists = Path(tempfile.mkdtemp(prefix="forked-"))
    atexit.register(shutil.rmtree, lists, True)
    return lists


def _keep_orphans(keep: bool) -> None:
    """Have the grandchildren whose parent ends become this process's children, which it can wait for (prctl(2))."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(keep), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


@cache
def _forker(*, own: bool) -> Forker:
    """Start a process that forks; it ends with this one.

    `own`: for those with this checkout's code, which it keeps. Others, and what is isolated, must not meet it.
    """
    ours, theirs = _connected()
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    lists = Path(tempfile.mkdtemp(prefix="forked-"))
    (lists / "first.json").write_text(json.dumps(_OWN_FIRST if own else _FIRST))
    command = [sys.executable, __file__, str(lists), str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=clean)
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return Forker(ours, lists)


def _connected() -> tuple[socket.socket, socket.socket]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST)
    return ends


# The process that forks


def _serve(connection: socket.socket, lists: Path | None, path: str = "") -> list[str]:
    """Fork for whoever asks, until nobody can; return in the fork, with the arguments that it is called with.

    What processes that have ended list in the folder `lists` is loaded here, that of a PYTHONPATH from there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests and what they test
    loaded: set[Path] = set()
    while True:
        message, ends, *_ = socket.recv_fds(connection, _LARGEST, _MOST)
        if not message:
            return []
        for listed in {*lists.glob("*.json")} - loaded if lists else ():
            _load(json.loads(listed.read_text()), path)
            if path:  # the next one of the path needs it too
                loaded.add(listed)
            else:
                listed.unlink()
        wanted = json.loads(message)
        if "lists" in wanted:
            if not os.fork():
                connection.close()
                _path_lists.append(Path(wanted["lists"]))
                return _serve(socket.socket(fileno=ends[0]), _path_lists[0], wanted["path"])
            os.close(ends[0])
            continue
        read, write = os.pipe()
        between = os.fork()
        if not between:
            between = os.getpid()
            if child := os.fork():
                os.write(write, str(child).encode())
                os._exit(0)
            while os.getppid() == between:  # until it is the child of who asked
                time.sleep(0.0005)
            _become(wanted, ends, [read, write, connection.detach()])
            return list(wanted["arguments"])[wanted["arguments"][0] == "-u" :]
        os.waitpid(between, 0)
        connection.send(os.read(read, 100))
        for end in (read, write, *ends):
            os.close(end)


def _load(names: list[str], path: str) -> None:
    """Load modules, those of a PYTHONPATH from there; they are no garbage."""
    gc.disable()
    before = list(sys.path)
    sys.path[1:1] = filter(None, path.split(os.pathsep))
    for name in names:
        with suppress(Exception):  # not every module is one to import by its name
            import_module(name)
    _known.update(names)
    sys.path[:] = before
    if path:
        _kept.update({file: _stamp(file) for file in _own_files() if file not in _kept})
    gc.freeze()
    gc.enable()


def _own_files() -> list[str]:
    """Return the files of Graftline that are loaded."""
    modules = [module for name, module in sys.modules.items() if _is_graftline(name)]
    return [file for module in modules if (file := getattr(module, "__file__", None))]


def _stamp(file: str) -> tuple[int, int]:
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _forget_changed() -> None:
    """Have Graftline be loaded anew if one of its files is another than the one that was loaded."""
    if any(_stamp(file) != stamp for file, stamp in _kept.items()):
        for name in filter(_is_graftline, list(sys.modules)):
            del sys.modules[name]


def _become(wanted: dict[str, Any], ends: list[int], others: list[int]) -> None:
    numbers = [0, 1, 2, *wanted.get("numbers", [])]
    above = [fcntl.fcntl(end, fcntl.F_DUPFD, max(numbers) + 1) for end in ends]  # what they become, another may be
    for end in (*ends, *others):
        os.close(end)
    for number, end in zip(numbers, above, strict=True):
        os.dup2(end, number)
        os.close(end)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if wanted["session"]:
        os.setsid()
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    tempfile.tempdir = None  # $TMPDIR may be another
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in os.environ
    at_once = "PYTHONUNBUFFERED" in os.environ or wanted["arguments"][0] == "-u"
    sys.stdin = sys.__stdin__ = TextIOWrapper(BufferedReader(FileIO(0, closefd=False)), "utf-8")
    for number, name, errors in ((1, "stdout", "strict"), (2, "stderr", "backslashreplace")):
        raw = FileIO(number, "wb", closefd=False)
        end: Any = raw if at_once else BufferedWriter(raw)
        text = TextIOWrapper(end, "utf-8", errors, line_buffering=number == 2, write_through=at_once)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def _fork_for_me(arguments: list[str]) -> list[str]:
    """Return the arguments, in this process, for which a copy of it forks from now on; in its forks, return theirs.

    The copy has one thread: torchrun, which will have several, could not fork by itself.
    """
    ours, theirs = _connected()
    if not os.fork():
        ours.close()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in range(3):  # whoever reads what this process says must not wait for the copy
            os.dup2(nowhere, number)
        os.close(nowhere)
        return _serve(theirs, None) or os._exit(0)
    theirs.close()
    _own_forker.append(Forker(ours, Path()))
    if STARTS in os.environ:
        subprocess.Popen = _ComponentsForked  # type: ignore[misc]
    else:
        from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

        subprocess_handler.Popen = Popen  # type: ignore[misc]
    return arguments


class _ComponentsForked(subprocess.Popen[Any]):
    """A component that a shell is told to start is a fork; all else is started as ever."""

    def _execute_child(self, *given: Any) -> None:
        args = given[0]
        if args[1:2] == ["-c"] and args[2].startswith("python -m graftline.components."):
            Popen._execute_child(self, [sys.executable, *shlex.split(args[2])[1:]], *given[1:])  # type: ignore[arg-type]
        else:
            super()._execute_child(*given)  # type: ignore[misc]


def _list_modules(place: Path, wanted: Callable[[str], bool], least: int = 1) -> None:
    names = [name for name in sys.modules if name != "__main__" and name not in _known and wanted(name)]
    if len(names) < least:
        return
    with suppress(OSError):  # the tests may be over
        place.with_suffix(".part").write_text(json.dumps(names))
        place.with_suffix(".part").rename(place.with_suffix(".json"))


def _is_graftline(name: str) -> bool:
    return name.partition(".")[0] == "graftline"


def _be(arguments: list[str]) -> None:
    """Do what `python ARGUMENTS` does."""
    isolated = arguments[0] == "-I"
    kind, *rest = arguments[isolated:]
    if isolated:
        del sys.path[0]
    else:
        first = {"-c": "", "-m": str(Path.cwd())}.get(kind, str(Path(kind).absolute().parent))
        named = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[:] = [first, *named, *sys.path[1:]]
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


def _be_and_end(arguments: list[str]) -> None:
    """Do what `python ARGUMENTS` does, and end as it ends; but take nothing apart that is loaded.

    Python frees every module at its end. A fork would first get a copy of each page that it shares: 0.45 s of CPU, with
    torch and transformers loaded, and nobody sees a difference.
    """
    code, interrupted = 0, False
    _known.update(sys.modules)
    _forget_changed()
    try:
        _be(arguments)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise  # Python prints it
        code = end.code or 0
    except BaseException as error:  # noqa: BLE001  (whatever it is, Python says it)
        sys.excepthook(type(error), error, error.__traceback__)
        code, interrupted = 1, isinstance(error, KeyboardInterrupt)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python's end does
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError):
        sys.exit(code)  # Python says what it makes of an end that nobody reads
    if interrupted:  # Python ends itself by the signal, unless what runs at the end makes it forget
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


if __name__ == "__main__":
    sys.modules["forked"] = sys.modules["__main__"]  # what a fork imports to start forks itself
    folder, *given = sys.argv[1:]
    if given[0].isdigit():
        given = _serve(socket.socket(fileno=int(given[0])), Path(folder))
        if not given:
            if not _path_lists:
                shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)
        if STARTS in os.environ or (given[0] == "-m" and given[1] in _STARTERS):
            given = _fork_for_me(given)
    if given:
        own = not os.environ.get("PYTHONPATH") and given[0] != "-I"
        place = Path(folder) / str(os.getpid())
        # What forks for another checkout begins anew with more libraries, which a few modules are not worth.
        atexit.register(_list_modules, place, lambda name: own or not _is_graftline(name), 1 if own else 30)
        for lists in _path_lists:
            atexit.register(_list_modules, lists / place.name, _is_graftline)
        _be_and_end(given)
