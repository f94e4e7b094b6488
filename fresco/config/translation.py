"""Convert configuration files of other tools to our settings, with a report.

Every key of such a file ends in one of three lists of the report: mapped, defaulted, ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fresco.errors import SettingsError
from fresco.options import entries, from_dict
from fresco.settings import RANDOM_SEED, FrescoSettings

CONTROLS = {
    "hed": "lllyasviel/sd-controlnet-hed",
    "depth": "lllyasviel/sd-controlnet-depth",
    "canny": "lllyasviel/sd-controlnet-canny",
}
"""ControlNet of Stable Diffusion 1.5 for each preprocessor, by hub name."""

TEXT = "a text"
WHOLE = "a whole number"
NUMBER = "a number"
SWITCH = "yes or no"
LIST = "a list"


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of every key of a file, in sentences."""

    kind: str
    """Which kind of file it is."""
    mapped: tuple[str, ...] = ()
    """Keys that set an option."""
    defaulted: tuple[str, ...] = ()
    """Options that the file leaves open, and their values."""
    ignored: tuple[str, ...] = ()
    """Keys without effect here, and why."""

    def text(self) -> str:
        """The report as text, one sentence a line."""
        lines = [f"{self.kind}:"]
        for name in ("mapped", "defaulted", "ignored"):
            sentences = getattr(self, name)
            lines += [f"  {name} ({len(sentences)}):", *(f"    {s}" for s in sentences)]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """A run as a configuration file describes it."""

    settings: FrescoSettings
    """All options."""
    source: Path | None
    """The clip, found; None if the file names none or it is not there (the report says so)."""
    output: Path | None
    """Path of the result; None if the file does not say."""
    report: ImportReport
    """What became of every key."""


def _is_path(text: str) -> bool:
    """Whether a model's name must be a path, because hub names are `owner/name`."""
    ending = text.lower().endswith((".safetensors", ".ckpt", ".pt", ".pth", ".bin"))
    return ending or text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text


class Translation:
    """Converts the keys of one file, and records what became of each."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self.values, self.path = values, path
        self.options: dict[str, dict[str, Any]] = {}
        self.mapped: list[str] = []
        self.defaulted: list[str] = []
        self.ignored: list[str] = []
        self._seen: set[str] = set()
        self._defaults = {f"{e.group}.{e.name}": e.default for e in entries()}

    def take(self, key: str, kind: str) -> Any:
        """Read the value of a key and check its type; None if it is absent or empty."""
        self._seen.add(key)
        value = self.values.get(key)
        types = {TEXT: str, WHOLE: int, NUMBER: (int, float), SWITCH: bool, LIST: list}[kind]
        right = isinstance(value, types) and isinstance(value, bool) == (kind == SWITCH)
        if value is not None and not right:
            raise SettingsError(f"{key} is {value!r} in {self.path}; give {kind}.")
        return value

    def put(self, target: str, value: Any) -> None:
        """Set an option, named `group.name`."""
        group, name = target.split(".")
        self.options.setdefault(group, {})[name] = value

    def map(self, key: str, target: str, kind: str) -> None:
        """Use a key that is one of our options under another name."""
        value = self.take(key, kind)
        if value is None:
            self.leave_open(key, target)
            return
        self.put(target, value)
        self.mapped.append(f"{key}: {target} is {value!r}.")

    def leave_open(self, key: str, target: str) -> None:
        """Report an option that the file does not set."""
        self.defaulted.append(f"{key} is not there: {target} stays {self._defaults[target]!r}.")

    def ignore(self, key: str, why: str) -> None:
        """Report a key that has no effect here, if the file has it."""
        self._seen.add(key)
        if key in self.values:
            self.ignored.append(f"{key} ({self.values[key]!r}): {why}")

    def bases(self) -> tuple[Path, ...]:
        """Folders that relative paths may start from: the tool's, the file's, the current one."""
        folder = self.path.resolve().parent
        return folder.parent, folder, Path.cwd()

    def locate(self, text: str) -> tuple[Path | None, Path]:
        """Find the file that a path names, and the folder from which it was found; else None."""
        given = Path(text).expanduser()
        for base in self.bases():
            if (base / given).exists():
                return base / given, base
        return None, Path.cwd()

    def clip(self, key: str) -> tuple[Path | None, Path]:
        """The source, and the folder from which it was found."""
        text = self.take(key, TEXT)
        if text is None:
            self.defaulted.append(f"{key} is not there: name the clip on the command line.")
            return None, Path.cwd()
        found, base = self.locate(text)
        if found is None:
            tried = ", ".join(str(folder / text) for folder in dict.fromkeys(self.bases()))
            self.ignored.append(
                f"{key} ({text!r}): no such file (tried {tried}). Name the clip on the command "
                "line."
            )
        else:
            self.mapped.append(f"{key}: the source is {found}.")
        return found, base

    def model(self, key: str) -> None:
        """The checkpoint: a path if the file exists, else a hub name."""
        text = self.take(key, TEXT)
        if not text:
            self.defaulted.append(f"{key} is not there: name a checkpoint as sampling.model.")
            return
        found, _ = self.locate(text)
        if found is None and _is_path(text):
            self.ignored.append(f"{key} ({text!r}): no such file. Name a "
                                "checkpoint as sampling.model.")
            return
        self.put("sampling.model", str(found or text))
        what = f"the path {found}" if found else f"the hub name {text!r}, for no such path is there"
        self.mapped.append(f"{key}: sampling.model is {what}.")

    def control(self, key: str) -> None:
        """Convert a ControlNet by its preprocessor; an unknown one becomes hed, as officially."""
        word = self.take(key, TEXT)
        name = (word or "hed").lower()
        kind = name if name in CONTROLS else "hed"
        self.put("sampling.control", kind)
        self.put("sampling.control_model", CONTROLS[kind])
        text = f"{key}: sampling.control is {kind!r} with the model {CONTROLS[kind]}"
        if word is None:
            self.defaulted.append(f"{key} is not there: sampling.control is 'hed', as officially.")
        elif kind != name:
            self.mapped.append(f"{text}, because {word!r} is none of {', '.join(CONTROLS)}.")
        else:
            self.mapped.append(f"{text}.")

    def seed(self, key: str) -> None:
        """The seed; a negative one means a random one."""
        seed = self.take(key, WHOLE)
        if seed is None or seed >= 0:
            self.map(key, "sampling.seed", WHOLE)
        else:
            self.put("sampling.seed", RANDOM_SEED)
            self.mapped.append(f"{key}: sampling.seed is {RANDOM_SEED}, a random one.")

    def added_words(self) -> None:
        """Read the added prompt and negative prompt, if the file has both."""
        if "a_prompt" in self.values or "n_prompt" in self.values:
            self.map("a_prompt", "sampling.added_prompt", TEXT)
            self.map("n_prompt", "sampling.negative_prompt", TEXT)
            return
        self.defaulted.append(
            "sampling.added_prompt and sampling.negative_prompt stay empty: the tool that this "
            "file is for adds words on quality and a negative prompt that the file does not "
            "contain, so its images differ. Give words of your own there."
        )

    def freeu(self, factors: Iterable[float]) -> None:
        """The factors b1, b2, s1, s2."""
        for name, factor in zip(("b1", "b2", "s1", "s2"), factors, strict=True):
            self.put(f"guidance.freeu_{name}", factor)

    def result(self, kind: str, source: Path | None, output: Path | None) -> ImportedRun:
        """Check and return the settings; keys that were not read are reported as unknown."""
        for key in self.values:
            if key not in self._seen:
                self.ignored.append(f"{key} ({self.values[key]!r}): unknown here.")
        try:
            settings = from_dict(self.options)
        except SettingsError as error:
            raise SettingsError(f"{self.path}: {error}") from error
        lists = (tuple(self.mapped), tuple(self.defaulted), tuple(self.ignored))
        return ImportedRun(settings, source, output, ImportReport(kind, *lists))
