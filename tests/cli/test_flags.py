"""Flags made from the settings: each reaches the run, and each wrong one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fresco.cli.flags import RESERVED, flag_names, options_table
from fresco.cli.main import main
from fresco.options import entries, to_dict
from fresco.settings import PRESETS, FrescoSettings
from tests.helpers.recorded_run import Calls, fails

ENTRIES = list(entries())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls().install(monkeypatch)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "my clip.mp4"
    path.write_bytes(b"clip")
    return path


def test_every_option_has_a_flag_of_its_own() -> None:
    names = flag_names()
    assert set(names) == {(e.group, e.name) for e in ENTRIES}
    flags = [*names.values(), *(f"no-{names[e.group, e.name]}" for e in ENTRIES if e.type is bool)]
    assert len(set(flags)) == len(flags)
    assert not set(flags) & RESERVED
    assert names["flow", "estimator"] == "flow"


def other_value(entry: Any) -> tuple[list[str], Any]:
    """Words of the command line for another value than the default, and that value."""
    flag = f"--{flag_names()[entry.group, entry.name]}"
    if entry.type is bool:
        return [f"--no-{flag[2:]}" if entry.default else flag], not entry.default
    if entry.option.choices:
        return [flag, entry.option.choices[-1]], entry.option.choices[-1]
    if entry.name == "ranges":
        return [flag, "0-1 seed=4"], ("0-1 seed=4",)
    if entry.name == "control_units":
        return [flag, "canny model=c"], ("canny model=c",)
    if entry.type is tuple:
        return [flag, "a.pt:0.5", flag, "b.pt"], ("a.pt:0.5", "b.pt")
    if entry.type is dict:
        return [flag, "3: x, y", flag, '{"4": "z"}'], {"3": "x, y", "4": "z"}
    low = {"resolution": 128, "canny_high": 120}.get(entry.name, 12)
    value = {int: low, float: 1.0, str: "3, 4"}[entry.type]
    return [flag, str(value)], value if entry.name != "keys" else "3,4"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: f"{e.group}.{e.name}")
def test_every_flag_reaches_the_run(
    entry: Any, calls: Calls, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fresco.hosts.diffusers.load.check_request", lambda settings: ())
    words, value = other_value(entry)
    extra = ["--model", "m"] if entry.name != "model" else []
    extra += ["--control-model", "c"] if entry.name == "control" else []
    assert main(["translate", str(clip), *words, *extra]) == 0
    assert getattr(getattr(calls.settings, entry.group), entry.name) == value


@pytest.mark.parametrize(
    ("command", "has", "has_not"),
    [("keyframes", ["--keys", "--max-interval", "--first-frame"], ["--prompt", "--crf"]),
     ("propagate", ["--flow", "--workers", "--gradient-blend", "--crf", "--resolution",
                    "--detect-shots", "--last-frame"],
      ["--prompt", "--batch-size", "--no-propagate", "--measures", "--seed"])],
)
def test_commands_have_the_flags_that_have_an_effect_there(
    command: str, has: list[str], has_not: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    words = capsys.readouterr().out.replace(",", " ").split()
    assert set(has) <= set(words)
    assert not set(has_not) & set(words)


def test_defaults_reach_the_run_unchanged(calls: Calls, clip: Path) -> None:
    assert main(["translate", str(clip), "--model", "m", "--preview", "2"]) == 0
    expected = to_dict(FrescoSettings())
    expected["sampling"]["model"] = "m"
    assert to_dict(calls.settings) == expected
    assert calls.arguments[:2] == [clip, clip.with_name("my clip_fresco.mp4")]
    assert calls.options == {"preview": 2, "workspace": None}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--batch-size", "2"], "--batch-size is 2; give 3 to 64."),
        (["--batch-size", "two"], "--batch-size is 'two'; give a whole number, 3 to 64."),
        (["--strength", "nan"], "strength is nan; give a finite number."),
        (["--strength", "much"], "strength is 'much'; give a number, 0 to 1."),
        (["--flow", "best"], "--flow is 'best'; choose one of auto, gmflow"),
        (["--preset", "fast"], "--preset is 'fast'; choose one of paper, steady, attention, off."),
        (["--preview", "0"], "--preview is '0'; give a whole number from 1."),
        (["--keys", "3,x"], "'x' in '3,x' is not a frame number"),
        (["--key-prompts", "eyes"], "names no frame"),
        (["--bath-size", "3"], "'--bath-size' is not an argument of fresco translate; did you mean "
                               "--batch-size?"),
        (["--batch", "3"], "'--batch' is not an argument"),
        (["--min-interval", "40"], "--min-interval is 40, above --max-interval, which is 30"),
        (["--seed"], "argument --seed: expected one argument"),
        (["--control", "canny"], "--control is 'canny' but --control-model is empty"),
        (["--prompt", "a AND b"], "--prompt is 'a AND b'; FRESCO cannot guide"),
        (["-q", "-v"], "not allowed with argument"),
        (["--config", "no.yaml"], "no.yaml does not exist"),
        (["-o", "{clip}"], "is the source itself"),
    ],
)
def test_wrong_words_are_named_before_any_work(
    words: list[str], named: str, calls: Calls, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("{clip}", str(clip)) for word in words]
    assert named in fails(capsys, 2, "translate", clip, "--model", "m", *words)
    assert not calls.arguments


# Files, presets and flags by rank


def test_presets_stand_between_file_and_flags(calls: Calls, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({
        "guidance": {"spatial_attention": False, "background_smoothing": True,
                     "optimization_rate": 0.1},
        "sampling": {"model": "m", "steps": 9}, "keyframes": {"batch_size": 4}}))

    def guidance(*words: str) -> dict[str, Any]:
        assert main(["translate", str(clip), "--config", str(path), *words]) == 0
        return to_dict(calls.settings)["guidance"]

    assert guidance()["spatial_attention"] is False
    paper = guidance("--preset", "paper", "--batch-size", "5")
    assert paper["spatial_attention"] is paper["background_smoothing"] is True
    assert (paper["consensus"], paper["optimization_rate"]) == (False, 0.1)
    assert (calls.settings.sampling.steps, calls.settings.keyframes.batch_size) == (9, 5)
    assert guidance("--preset", "full") == paper
    assert guidance("--preset", "steady") == paper | {"consensus": True}
    fast = guidance("--preset", "attention")
    assert (fast["spatial_attention"], fast["spatial_optimization"]) == (True, False)
    mixed = guidance("--preset", "attention", "--spatial-optimization")
    assert (mixed["spatial_optimization"], mixed["temporal_optimization"]) == (True, False)
    off = guidance("--preset", "off")
    assert not any(off[name] for name in PRESETS["off"])


def test_an_official_file_runs_unchanged(
    calls: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "data" / "music.mp4"
    source.parent.mkdir()
    source.write_bytes(b"clip")
    path = tmp_path / "config" / "config_music.yaml"
    path.parent.mkdir()
    path.write_text("file_path: ./data/music.mp4\nsave_path: ./output/music/\nmininterv: 10\n"
                    "maxinterv: 30\nsd_path: some/model\nnum_inference_steps: 20\n"
                    "num_warmup_steps: 3\nuse_controlnet: False\n")
    assert main(["translate", "--config", str(path)]) == 0
    result = tmp_path / "output/music/music_fresco.mp4"
    assert calls.arguments[:2] == [source, result]
    assert calls.settings.sampling.strength == 0.85
    out, err = capsys.readouterr()
    assert out == f"{result}\n"
    assert "mapped (" in err
    assert "--added-prompt" in err
    # Another clip goes into the same folder under its own name.
    other = source.with_name("other.mp4")
    other.write_bytes(b"clip")
    assert main(["translate", str(other), "--config", str(path)]) == 0
    assert calls.arguments[1] == tmp_path / "output/music/other_fresco.mp4"


def test_a_file_whose_clip_is_gone_is_an_input_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config_music.yaml"
    path.write_text("file_path: a.mp4\nsd_path: m\n")
    assert main(["translate", "-q", "--config", str(path)]) == 3
    assert "The clip that" in capsys.readouterr().err


def test_the_run_file_beside_the_result_reproduces_the_run(
    calls: Calls, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.txt").write_text("0 5 9")
    (tmp_path / "style.pt").write_bytes(b"")
    words = ["--model", "some/hub", "--keys", "keys.txt", "--lora", "style.pt:0.5", "--seed", "4",
             "--key-prompts", "5: closed eyes", "--preset", "attention", "-o", "out/b.mp4"]
    Path("out").mkdir()
    assert main(["translate", str(clip), *words]) == 0
    settings = calls.settings
    assert settings.keyframes.keys == "0,5,9"
    assert settings.sampling.lora == (f"{tmp_path / 'style.pt'}:0.5",)
    (tmp_path / "keys.txt").unlink()
    monkeypatch.chdir("/")
    assert main(["translate", "--config", str(tmp_path / "out" / "b.fresco-run.json")]) == 0
    assert calls.settings == settings
    assert calls.arguments[:2] == [clip, tmp_path / "out/b.mp4"]


# Table and help


def test_options_are_a_table_of_all_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["options"]) == 0
    table = capsys.readouterr().out
    assert table == options_table()
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) == len(ENTRIES)
    assert all(line.count(" | ") == 5 for line in rows)
    assert "| `batch_size` | `--batch-size` | tab, API, img2img | 8 | 3 to 64 |" in table
    assert "| `device` | `--device` | - |" in table


def test_help_names_default_range_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["translate", "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "anchors included. [default 8; 3 to 64]" in text
    assert "--flow {auto,gmflow,dis,raft,files}" in text
    assert "--sound, --no-sound" in text
    for entry in ENTRIES:
        assert " ".join(entry.option.help.split()) in text
