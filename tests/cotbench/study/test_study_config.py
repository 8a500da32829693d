"""What a study file may say, and what is said of one that is wrong."""

from pathlib import Path

import pytest

from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.examples import read_examples
from cotbench.study.config import PRESETS, StudyConfig, parse_study, read_study
from cotbench.study.plan import make_study_plan
from cotbench.study.stage import RunRequest

SMALL = """
name = "small"
models = ["tiny"]
[envs]
alfworld-gen = ["id", "ood"]
[[arms]]
name = "sft"
"""


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_are_studies(name: str) -> None:
    config = read_study(name)
    assert config.name == name
    # `small` has to end in minutes on a GPU, and `tiny-rl` in a night on two cores.
    inside = set() if name in ("small", "tiny-rl") else {"attention", "gradient"}
    assert {probe.probe for probe in config.probes} >= {"alignment", "conflict"} | inside


def test_the_small_study_is_what_was_asked_for() -> None:
    config = read_study("tiny")
    seeds = {arm.name: arm.seeds_of(config.seeds) for arm in config.arms}
    assert len(seeds["sft"]) >= 5 and len(seeds["sft+"]) >= 5
    assert len(seeds["actions-only"]) >= 2 and len(seeds["full-traces"]) >= 2
    assert config.traces.teacher.startswith("scripted?names=state")
    assert config.envs == {"alfworld-gen": ("id", "ood", "ood_room", "ood_pair")}
    main = config.probes[0]
    assert main.probe == "alignment"
    assert main.count("id") >= 150


def test_a_file_is_read_like_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(SMALL)
    assert read_study(str(path)) == parse_study(SMALL, "own")


def test_a_study_holds_the_texts_of_the_files_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Be quick.\n")
    (tmp_path / "shots.toml").write_text('[[examples]]\nobservation = "Task"\nturns = [{ action = "look", trace = "Hm." }]\n')
    (tmp_path / "own.toml").write_text(
        SMALL + 'elicitation = { examples = "shots.toml" }\n[elicitation]\nsystem_prompt = "system.txt"\n'
    )
    config = read_study(str(tmp_path / "own.toml"))
    examples = [{"observation": "Task", "turns": [{"action": "look", "trace": "Hm."}]}]
    assert config.elicitation_of("sft") == {"system_prompt": "Be quick.", "examples": examples}
    assert StudyConfig.model_validate_json(config.model_dump_json()) == config
    words = RunRequest("random", {}, config.elicitation_of("sft")).arguments(lambda output: Path())
    assert words[2:4] == ["--system-prompt", "inline:Be quick."]
    assert read_examples(words[5]) == Elicitation(examples=examples).examples
    (tmp_path / "own.toml").write_text(SMALL + '[elicitation]\nsystem_prompt = "nowhere.txt"\n')
    with pytest.raises(UsageError, match=r"--system-prompt .*nowhere.txt: No such file"):
        read_study(str(tmp_path / "own.toml"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('name = "small"|nmae = "small"', "unknown option 'nmae' of study here; did you mean 'name'"),
        ('["id", "ood"]|["id", "odd"]', "unknown split 'odd' of alfworld-gen paper; did you mean 'ood'"),
        ("alfworld-gen|alfword-gen", "unknown environment 'alfword-gen'"),
        (
            'name = "sft"|name = "sft"\nrecipee = "sft"',
            "unknown option 'arms.0.recipee' of study here; did you mean 'arms.0.recipe'",
        ),
        ('name = "sft"|name = "../sft"', "arms.0.name"),
        ('name = "sft"|name = "sft"\n[[arms]]\nname = "sft"', "two arms have the name 'sft'"),
        ('models = ["tiny"]|models = ["tiny"]\ncheckpoints = [0.5, 0.5]', "checkpoints are different shares"),
        ('models = ["tiny"]|models = ["tiny"]\ncheckpoints = [2.0]', "checkpoints are different shares"),
        (
            'models = ["tiny"]|models = ["tiny"]\n[[probes]]\nprobe = "alignement"',
            "unknown probe 'alignement'; did you mean 'alignment'",
        ),
        ('models = ["tiny"]|models = ["tiny"]\n[[runs]]\nsplits = ["ood_room"]', "unknown split 'ood_room' of this study"),
        ('models = ["tiny"]|models = ["tiny"]\n[[runs]]\narms = ["sft+"]', "unknown arm 'sft+' of this study"),
        (
            'name = "sft"|name = "sft"\ntraces = { teachr = "scripted" }',
            "unknown option 'arms.0.traces.teachr' of study here; did you mean 'arms.0.traces.teacher'",
        ),
        ('name = "sft"|name = "sft"\ntraces = {}', "arm sft: its traces are empty: name a teacher"),
        (
            'name = "sft"|name = "sft"\nelicitation = { histroy = "traces" }',
            "unknown elicitation option 'histroy' of arm sft; did you mean 'history'",
        ),
        ('name = "sft"|name = "sft"\nelicitation = { history = "all" }', "arm sft: elicitation.history all: Input should be"),
        (
            'models = ["tiny"]|models = ["tiny"]\n[elicitation]\nhistroy = "traces"',
            "unknown elicitation option 'histroy' of study",
        ),
        ('models = ["tiny"]|models = []', "models"),
        ('models = ["tiny"]|models = ["tiny"', "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(change: str, said: str) -> None:
    before, after = change.split("|")
    # Tables come last in TOML: what begins one goes to the end.
    begins_a_table = "\n[" in after and "arms]]" not in after
    text = SMALL + after.partition("\n")[2] if begins_a_table else SMALL.replace(before, after)
    with pytest.raises(UsageError) as caught:
        parse_study(text, "here")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        ('teacher = "scripted?nams=full"', "unknown option 'nams' of agent 'scripted'; did you mean 'names'"),
        ('teacher = "scripted?names=ful"', "unknown names 'ful' of agent 'scripted'; did you mean 'full'"),
        ('teacher = "scriptd"', "unknown agent 'scriptd'; did you mean 'scripted'"),
    ],
)
def test_a_wrong_teacher_is_told_before_anything_is_begun(traces: str, message: str) -> None:
    study = parse_study(SMALL + f"traces = {{ {traces} }}", "here")
    with pytest.raises(UsageError) as caught:
        make_study_plan(study)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown study 'tyni'.*tiny"):
        read_study("tyni")
    with pytest.raises(UsageError, match="No such file"):
        read_study(str(tmp_path / "none.toml"))
