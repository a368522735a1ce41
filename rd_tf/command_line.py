"""Runs a command: its keyword parameters are its flags, and a user's mistake is one sentence."""

import codecs
import contextlib
import ctypes
import errno
import importlib
import inspect
import os
import re
import select
import signal
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from absl import flags

from rd_tf import import_place, plugins
from rd_tf.flag_definitions import FLAGS, GROUPS
from rd_tf.storage import InputError

Command = Callable[..., Any]
Flags = dict[str, Any]
_HELP = ("--help", "-help", "-h", "--helpfull", "--helpshort", "-?")
NO_SPACE = "No space left on device"
# What a shell reports of a program that SIGPIPE has ended.
_NOBODY_READS = 128 + signal.SIGPIPE


def parameter_names(command: Command) -> list[str]:
    """The flags a command takes: the names of its parameters, or its `flag_names` where it takes them as a whole.

    Those of imported plug-ins are among them where the command makes models.
    """
    names = list(getattr(command, "flag_names", None) or inspect.signature(command).parameters)
    if {"model", "import_module"} <= set(names):
        # Once each: a command that took its names from others may have those of plug-ins already.
        names = list(dict.fromkeys([*names, *plugins.flag_names()]))
    return names


def choose(command: Command, values: Flags, **changed: Any) -> Flags:
    """The flags of one command out of many, some of them changed: what a pipeline hands on."""
    return {name: changed.get(name, values.get(name)) for name in parameter_names(command)}


def default_flags(command: Command) -> dict[str, Any]:
    """What every flag of a command is when it is not given."""
    return _flags_of(command).flag_values_dict()


def complete(command: Command, given: Flags) -> Flags:
    """Every flag of a command called from Python: what is given, and the defaults of the others.

    Raises:
        TypeError: a flag that the command does not have.
    """
    import_plugins(given.get("import_module", []))
    values = default_flags(command)
    unknown = set(given) - set(values)
    if unknown:
        raise TypeError(f"{command.__name__}() has no flag {sorted(unknown)[0]!r}")
    return {**values, **given}


def import_plugins(modules: Sequence[str]) -> None:
    """Imports modules of plug-ins, which import TensorFlow, without TensorFlow's start-up lines."""
    if modules:
        from rd_tf.runtime import import_quietly

        import_quietly()
        plugins.import_modules(modules)


def flag_lines(values: dict[str, Any]) -> str:
    """Flag values as a flagfile, one `--name=value` a line."""
    # A number sign behind a space would begin a comment.
    return "".join(f"--{name}={re.sub(_HASH, _ESCAPED_HASH, _as_text(value))}\n" for name, value in values.items())


def parse(command: Command, arguments: Sequence[str]) -> dict[str, Any]:
    """Reads flags and flagfiles.

    Args:
        command: whose parameters name the flags.
        arguments: the command line without the program's name.

    Raises:
        flags.Error: an unknown flag, an illegal value or a stray word, in one sentence.
    """
    given = _Flagfiles().words(arguments)
    words = [word for word, _ in given]
    _import_named(command, words)
    values = _flags_of(command)
    # Those of flagfiles one by one first, so that what is wrong is said with its place.
    for word, place in given:
        if place:
            _set(values, [word], f"{place}: ")
    _set(values, words)
    found = values.flag_values_dict()
    for name, value in found.items():
        if not _is_text(_as_text(value)):
            raise flags.Error(f"flag --{name}={_as_text(value)!r} holds a NUL or is not UTF-8")
    return found


def _set(values: flags.FlagValues, words: Sequence[str], place: str = "") -> None:
    try:
        rest = values(["", *words])[1:]
    except flags.UnrecognizedFlagError as error:
        raise flags.Error(place + str(error).replace("command line flag", "flag").rstrip(".")) from None
    except flags.Error as error:
        raise flags.Error(place + str(error).removeprefix("ERROR:: ")) from None
    # absl looks for flags of a similar name, one call deeper for every letter.
    except RecursionError:
        raise flags.Error(
            f"{place}unknown flag of a thousand letters or more; every setting is a flag, --name=value"
        ) from None
    if rest:
        raise flags.Error(f"{place}unexpected word {rest[0]!r}; every setting is a flag, --name=value")


_FLAGFILE = ("--flagfile", "-flagfile")
_MOST_BYTES = 2**20
_MOST_FILES = 1000
# A number sign that is none of a comment has a backslash before it.
_HASH, _ESCAPED_HASH = r"(?<=\s)(\\*#)", r"\\\1"


class _Flagfiles:
    """Reads the flagfiles of a command line, and those that they name.

    absl's own reader takes a byte order mark, an indented # and a comment behind a value for flags, goes round in
    circles of files without a word, and tells neither file nor line.
    """

    def __init__(self) -> None:
        self._files = 0

    def words(self, arguments: Iterable[str], place: str = "", within: tuple[str, ...] = ()) -> list[tuple[str, str]]:
        """All words in order, each with the file and line that it stands in, "" for the command line.

        Args:
            arguments: words that may name flagfiles.
            place: theirs.
            within: flagfiles that are being read.

        Raises:
            flags.Error: a flagfile cannot be read.
        """
        found: list[tuple[str, str]] = []
        rest = iter(arguments)
        for word in rest:
            name, equals, path = word.partition("=")
            if name not in _FLAGFILE:
                found.append((word, place))
                continue
            path = path if equals else next(rest, "")
            if not path and not equals:
                raise flags.Error(f"{place}{': ' if place else ''}--flagfile names no file")
            if path:
                found += self._read(path, f"{place}: " if place else "", within)
        return found

    def _read(self, path: str, named_in: str, within: tuple[str, ...]) -> list[tuple[str, str]]:
        self._files += 1
        try:
            path = str(Path(path).expanduser())
            real = os.path.realpath(path)
            if real in within:
                raise flags.Error(f"{named_in}flagfile {path} leads back to itself; take the line out")
            if self._files > _MOST_FILES:
                raise flags.Error(f"{named_in}flagfile {path} is one of more than {_MOST_FILES:,}; use fewer")
            with open(path, "rb") as file:
                content = file.read(_MOST_BYTES + 1)
        # A NUL in a name; the home directory of nobody.
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise flags.Error(f"{named_in}Unable to open flagfile {path!r} ({reason})") from None
        if len(content) > _MOST_BYTES:
            raise flags.Error(f"{named_in}flagfile {path} is larger than 1 MiB; name a file of flags, one a line")
        is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        try:
            text = content.decode("utf-16" if is_utf_16 else "utf-8-sig")
        except UnicodeDecodeError as error:
            at = content.count(b"\n", 0, error.start) + 1
            raise flags.Error(f"{path}, line {at}: a flagfile cannot be read ({error}); save it as UTF-8") from None
        found: list[tuple[str, str]] = []
        for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
            # Only what begins a word begins a comment: a URL has // and a name may have a number sign.
            flag = re.sub(r"(?s)(?:^|(?<=\s))#.*", "", line).strip()
            if flag and not flag.startswith("//"):
                flag = re.sub(r"(?<=\s)\\(\\*#)", r"\1", flag)
                found += self.words([flag], f"{path}, line {number}", (*within, real))
        return found


def run(command: Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs `python -m ...`: parses flags, calls the command, exits with 0, 1 (user's mistake) or 2 (usage).

    Where nobody reads the output any more, as with `| head -1`, it ends without a word and exits with 141.
    """
    try:
        code = _run(command, sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        if _is_read(sys.stdout):
            raise
        # What is still buffered would be tried again, and complained about, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _NOBODY_READS
    sys.exit(code)


def make_callable(module: str, place: str) -> None:
    """Lets a command's module be called as the function of the library that has its name, such as `rd_tf.evaluate`.

    Args:
        module: its `__name__`.
        place: "module:function", imported when it is called.
    """

    class Door(types.ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return import_place(place)(*args, **kwargs)

    sys.modules[module].__class__ = Door


COMMANDS = {
    "prepare": "rd_tf.prepare",
    "train": "rd_tf.train",
    "teach": "rd_tf.teach",
    "evaluate": "rd_tf.evaluate",
    "recommend": "rd_tf.recommend",
    "show": "rd_tf.show",
    "export": "rd_tf.export",
    "serve": "rd_tf.serve",
    "distill": "pipelines.distill",
    "tune": "pipelines.tune",
}


def main() -> NoReturn:
    """The console command `rd-tf NAME --flag=value ...`: the same as `python -m rd_tf.NAME`."""
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else ""), sys.argv[2:]
    if name in _HELP:
        print(
            "Usage: rd-tf COMMAND --flag=value ...\n\nCommands, each with its own --help:\n"
            + "\n".join(f"  {name}" for name in COMMANDS)
        )
        sys.exit(0)
    if name not in COMMANDS:
        _say(f"{name or 'no word'!r} is no command; give one of {', '.join(COMMANDS)}, such as rd-tf train --help")
        sys.exit(2)
    module = importlib.import_module(COMMANDS[name])
    run(getattr(module, name), arguments)


def _run(command: Command, arguments: Sequence[str]) -> int:
    program = f"python -m {_module_name(command)}"
    try:
        if any(word in _HELP for word in arguments):
            with contextlib.suppress(flags.Error):
                _import_named(command, [word for word, _ in _Flagfiles().words(arguments) if word not in _HELP])
            print(help_text(command, program))
            return 0
        values = parse(command, arguments)
    except InputError as error:
        _say(str(error))
        return 1
    except flags.Error as error:
        _say(f"{' '.join(str(error).removeprefix('ERROR:: ').split())} ({program} --help lists the flags)")
        return 2
    # TensorFlow's C++ start-up lines are noise to a user; the variable is the only switch that comes early enough.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    _say_bus_error()
    try:
        with _ending_on_sigterm():
            command(**values)
    except InputError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("interrupted; finished stages are kept, and the same command begins the unfinished one again")
        return 130
    except Exception as error:
        sentence = _machine_trouble(error)
        if sentence is None:
            raise
        _say(sentence)
        return 1
    return 0


# Seconds after SIGTERM in which a command may end by itself.
_GRACE = 8.0


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Lets SIGTERM end a block as `sys.exit(143)` does, wherever it comes.

    Where Python runs within a callback of other code, an exception is printed and lost: it is raised again every second
    until something is on its way out. Where other code runs for long without Python, the process ends after a while.
    """

    def end(*_: Any) -> NoReturn:
        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
        sys.exit(_ENDED)

    def again(*_: Any) -> None:
        # In a finally or an __exit__ it is on its way.
        if not isinstance(sys.exc_info()[1], SystemExit):
            sys.exit(_ENDED)

    def watch() -> None:
        while number := os.read(reading, 1):
            # Others note the signal and see to it themselves.
            is_ours = number[0] == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is end
            if is_ours and not has_ended.wait(_GRACE):
                os._exit(_ENDED)
        os.close(reading)

    has_ended = threading.Event()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGTERM, end)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        has_ended.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.set_wakeup_fd(before)
        os.close(writing)


def _say_bus_error() -> None:
    """Lets a process end in a sentence where a file that it has mapped is cut: that is a signal, no exception."""

    def end(_: int) -> None:
        os.write(2, _CUT.encode())
        os._exit(1)

    global _on_bus_error
    _on_bus_error = ctypes.CFUNCTYPE(None, ctypes.c_int)(end)
    ctypes.CDLL(None).signal(signal.SIGBUS, _on_bus_error)


_CUT = (
    "error: a file that this command was reading was cut, or its disk failed; let nothing else write the dataset or "
    "the teacher's lists meanwhile, make what is damaged again and run the same command again\n"
)
# Kept as long as the process, which may call it.
_on_bus_error: Any = None
_ENDED = 128 + signal.SIGTERM


def _import_named(command: Command, arguments: Sequence[str]) -> None:
    """Imports the modules of `--import_module`, whose plug-ins have flags that the rest may hold."""
    if "import_module" not in parameter_names(command):
        return
    values = _define(["import_module"])
    # What is wrong with the rest is said when all of it is read.
    with contextlib.suppress(flags.Error, ValueError, RecursionError):
        values(["", *arguments], known_only=True)
    import_plugins(values.import_module)


def _is_read(stream: TextIO) -> bool:
    # Writing once more would not tell: what could not be written is forgotten.
    poll = select.poll()
    poll.register(stream, 0)
    return not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def help_text(command: Command, program: str) -> str:
    """What `--help` prints: the command's purpose and every flag with its default."""
    values = _flags_of(command)
    # The sections after the text are for callers in Python.
    purpose = re.split(r"\n\n(?:Args|Returns|Raises):", inspect.getdoc(command) or "")[0]
    lines = [f"Usage: {program} --flag=value ... [--flagfile=FILE]"]
    for paragraph in purpose.split("\n\n"):
        lines += ["", *textwrap.wrap(paragraph, _WIDTH)]
    names = parameter_names(command)
    for title in [*dict.fromkeys(GROUPS.values()), _OTHER_FLAGS]:
        group = [name for name in names if GROUPS.get(name, _OTHER_FLAGS) == title]
        if group:
            lines += ["", f"{title}:"]
        for name in group:
            lines += _flag_help(values[name])
    about = (
        "A file of flags, one a line, later ones win. # begins a comment, at the beginning of a line or after a space."
    )
    return "\n".join([*lines, "", "Flags from files:", "  --flagfile", *_wrapped(about)])


_WIDTH = 80
_OTHER_FLAGS = "Others"


def _flag_help(flag: flags.Flag) -> list[str]:
    kind = "[no]" if isinstance(flag.default, bool) else ""
    name, default = f"  --{kind}{flag.name}", f"(default: {_as_text(flag.default) or 'empty'})"
    described = flag.help
    syntax = getattr(flag.parser, "syntactic_help", "")
    if isinstance(flag.parser, flags.IntegerParser | flags.FloatParser) and syntax:
        described += f" ({syntax.removeprefix('a ').removeprefix('an ')})"
    if len(f"{name}  {default}") <= _WIDTH:
        return [f"{name}  {default}", *_wrapped(described)]
    return [name, *_wrapped(default.replace(",", ", ")), *_wrapped(described)]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="      ", subsequent_indent="      ", break_on_hyphens=False)


def _flags_of(command: Command) -> flags.FlagValues:
    """The flags of a command; its `flag_defaults` stand in for the defaults of all commands."""
    values = _define(parameter_names(command))
    for name, value in getattr(command, "flag_defaults", {}).items():
        values.set_default(name, value)
    return values


def _define(names: Sequence[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    for name in names:
        FLAGS[name](values)
    values.mark_as_parsed()
    return values


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _module_name(command: Command) -> str:
    main = sys.modules["__main__"].__spec__
    return main.name if main else command.__module__


# What TensorFlow, NumPy and the system's loader say of memory that there is not.
_NO_MEMORY = (
    "OOM when allocating",
    "Cannot allocate memory",
    "failed to map segment",
    "can't start new thread",
    "bad_alloc",
)


def _machine_trouble(error: Exception) -> str | None:
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        said = str(error).splitlines()[0][:200] if str(error) else ""
        return (
            f"out of memory{f' ({said})' if said else ''}; lower --dim, --batch_size, --negatives or --block_size, as "
            "far as this command has them, or give the process more memory (ulimit -v shows its limit)"
        )
    # NumPy's tofile() gives no number.
    is_cut = isinstance(error, OSError) and re.search(r"\d+ requested and \d+ written", str(error)) is not None
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or NO_SPACE in str(error) or is_cut:
        file = getattr(error, "filename", None)
        return f"no space left on the disk{f' for {file}' if file else ''}; free some and run the same command again"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {(error.strerror or 'cannot be used').lower()}; name another path or mend this one"
    return None


def _say(sentence: str) -> None:
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
