"""The head recognition: short prompts, from the raw data to a release that is asked."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import jiwer
import numpy as np
import pyarrow.parquet as pq
import pytest
import small
import small_speech
import small_text
import soundfile
import torch

from graftline.cli.app import main
from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.gate import Gate, decide
from graftline.learning.distributed import World
from graftline.problems.fit import Data, fit
from graftline.problems.model import load_model, read_problem
from graftline.problems.reading import lost_tokens
from graftline.problems.recognition.answers import Transcribed
from graftline.problems.recognition.decoding import Heard, Word, decoded
from graftline.problems.recognition.parameters import RecognitionParams
from graftline.problems.recognition.present import _by_length
from graftline.problems.recognition.problem import Recognition, Recognizer
from graftline.problems.recognition.scores import CER, WER, error_rows, marked
from graftline.problems.recognition.spelling import SPECIAL, frames_needed, read_vocabulary, spelled, vocabulary_of
from graftline.problems.recognition.utterances import Utterances, utterances
from graftline.report import write_report
from graftline.score import estimate
from graftline.store.opening import open_store
from graftline.tasks.finetune import FinetuneParams
from graftline.values.clips import Clips

LIFT = {"lift_labels": [20], "lift_seeds": 2, "lift_epochs": 1, "mistakes": 3}
ALONE = """
import json, sys
sys.modules["graftline"] = None
import numpy, torch, transformers
torch.set_num_threads(1)
folder, clips = json.loads(sys.stdin.read())
model = transformers.AutoModelForCTC.from_pretrained(folder, local_files_only=True).eval()
processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
texts = []
for clip in clips:
    given = processor(numpy.array(clip, "float32"), sampling_rate=8000, return_tensors="pt")
    best = model(**given).logits.argmax(dim=-1)
    heard = processor.batch_decode(best, output_word_offsets=True)
    texts.append([type(model).__name__, heard.text[0], heard.word_offsets[0]])
print(json.dumps(texts, default=int))
"""
SAID = ["please hold", "thank you", "one", "", "press one now"]
HEARD = ["please hold the line", "thank", "won", "a", "press one now"]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of all five components, and the store with digits@1."""
    home = tmp_path_factory.getbasetemp()
    shifts = {"corruptions": ["telephone", "white_noise"], "severities": [5], "labels": 20, "test_rows": 10}
    evaluate = {**LIFT, "shifts": shifts, "gate": {"ceilings": {"wer": 3.0, "shifted_cer": 9.0}}}
    document = {"finetune": small_speech.FINETUNE, "evaluate": evaluate}
    return small.release_of(small_speech.trunk(home), small_speech.dataset(home), document)


@pytest.fixture(scope="module")
def few(released: Path) -> Utterances:
    """The 20 utterances that `learnt` has learned by heart, the shortest."""
    found = Recognition(RecognitionParams()).read(released / "dataset", "train", released / "trunk")
    return found.take(found.lengths.argsort(stable=True)[:20])


@pytest.fixture(scope="module")
def learnt(released: Path, few: Utterances) -> Recognizer:
    params = FinetuneParams.model_validate(
        {"head": {"name": "recognition"}, "batch": 20, "epochs": 1, "min_steps": 80, "learning_rate": 0.004}
    )
    model = fit(released / "trunk", Data(few, None), params, 0, read_schema(released / "dataset"))
    assert isinstance(model, Recognizer)
    return model


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_twenty_utterances_are_learned_by_heart(learnt: Recognizer, few: Utterances) -> None:
    answers = learnt.answer(few)
    assert answers.scores[0] == CER and answers.value < 0.05
    assert answers.measured(WER).value < 0.2


def test_transformers_alone_hears_the_same_words_at_the_same_times(
    learnt: Recognizer, few: Utterances, released: Path, tmp_path: Path
) -> None:
    learnt.save(tmp_path)
    given = json.dumps([str(tmp_path), [(wave / 32768).tolist() for wave in few.waves()]])
    done = forked.run([sys.executable, "-I", "-c", ALONE], input=given, text=True)
    assert done.returncode == 0, done.stderr
    again = Recognition(RecognitionParams()).load(tmp_path, {})
    assert again.tokens == learnt.tokens
    for mine, (name, text, words) in zip(again.hear(few)[0], json.loads(done.stdout), strict=True):
        assert (name, text) == ("HubertForCTC", mine.text)
        times = [(one["word"], one["start_offset"] * 0.02, one["end_offset"] * 0.02) for one in words]
        assert [Word(word, round(start, 3), round(end, 3)) for word, start, end in times] == mine.words


def test_the_words_of_a_clip_are_where_they_are_said(learnt: Recognizer, few: Utterances) -> None:
    """Of two clips with silence between, the second word is heard after the first."""
    place = next(place for place, text in enumerate(few.texts()) if " " not in text)
    wave = few.waves()[place]
    twice = Clips.of([np.concatenate([wave, wave])], 8000)
    asked = utterances_of(twice, [""], learnt)
    words = learnt.hear(asked)[0][0].words
    seconds = len(wave) / 8000
    assert len(words) >= 2 or len(words[0].word) > len(few.texts()[place])
    assert words[0].start < seconds < words[-1].end <= 2 * seconds


def test_spoiled_speech_is_asked_of_the_released_model_and_of_the_lifts_fits(released: Path) -> None:
    """Of errors less is better: what helps makes them fewer."""
    metrics, told = (read(released / "evaluation" / name) for name in ("metrics.json", "shifts.json"))
    assert (told["score"], told["rows"]) == ("cer", 10)
    by_way = {one["corruption"]: one for one in told["sets"]}
    assert metrics["shifted_cer_telephone"] == pytest.approx(by_way["telephone"]["released"]["value"])
    fits = told["fits"]["spoiled"]
    ways, seeds = ("telephone.5", "white_noise.5"), ("0", "1")
    gains = [np.mean([fits["scratch"][way][seed] - fits["trunk"][way][seed] for way in ways]) for seed in seeds]
    ratios = [np.mean([fits["trunk"][way][seed] / fits["scratch"][way][seed] for way in ways]) for seed in seeds]
    assert metrics["shift_lift"] == pytest.approx(np.mean(gains)) and metrics["mce"] == pytest.approx(np.mean(ratios))
    rules = {rule["name"]: rule["passed"] for rule in read(released / "evaluation/decision.json")["rules"]}
    assert rules["ceilings.shifted_cer"]


def utterances_of(clips: Clips, texts: list[str], model: Recognizer, **params: Any) -> Utterances:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        model.network.config.save_pretrained(folder)
        rows = np.arange(len(clips))
        return utterances(clips, texts, rows, Path(folder), RecognitionParams(**params), frozenset("abc "))


def test_errors_are_counted_as_jiwer_does_also_where_nothing_is_said() -> None:
    for score, rate in ((WER, jiwer.wer), (CER, jiwer.cer)):
        found = error_rows(score, np.arange(5), SAID, HEARD)
        assert found.value == pytest.approx(rate(SAID, HEARD), abs=1e-12)
        weights = np.array([[2.0, 0, 1, 0, 3]])
        drawn = [place for place, count in enumerate(weights[0]) for _ in range(int(count))]
        expected = rate([SAID[place] for place in drawn], [HEARD[place] for place in drawn])
        assert found.values(weights)[0] == pytest.approx(expected, abs=1e-12)
    assert error_rows(WER, np.arange(5), SAID, HEARD).statistics.tolist() == [[2, 2], [1, 2], [1, 1], [1, 0], [0, 3]]


def test_a_rate_may_exceed_one_and_fewer_errors_are_better() -> None:
    measured = error_rows(WER, np.arange(2), ["a", "b"], ["c d e", "f g"])
    found = estimate(measured, resamples=50, seed=0)
    assert found.value == 2.5 and found.high >= 2.5 and not WER.higher
    assert WER.gain(0.2, 0.5) == pytest.approx(0.3)
    gate = Gate(ceilings={"wer": 1.5})
    gate.check_names(RecognitionParams.scores, "params.yaml")
    assert not decide(gate, {"wer": 2.5}, None).passed and decide(gate, {"wer": 1.2}, None).passed


def test_differences_are_marked_word_by_word() -> None:
    assert marked("press one now", "press won") == "press [-one-] {+won+} [-now-]"
    assert marked("", "a") == "{+a+}" and marked("a b", "") == "[-a b-]" and marked("a", "a") == "a"


@pytest.mark.parametrize(
    ("rule", "text", "becomes"),
    [
        ({}, "Don't press \u201c1\u201d -- 'now'!", "don't press 1 now"),
        ({}, "Un-indentified | na\u00efve nai\u0308ve \u2019til", "un indentified na\u00efve na\u00efve til"),
        ({"case": "upper"}, "stra\u00dfe?", "STRASSE"),
        ({"case": "keep", "punctuation": "keep"}, " A.M.  | 3%! ", "A.M. 3%!"),
        ({}, "\u041d\u0430\u0436\u043c\u0438\u0442\u0435!", "\u043d\u0430\u0436\u043c\u0438\u0442\u0435"),
        ({}, "...", ""),
    ],
)
def test_transcripts_are_spelled_by_the_declared_rule(rule: dict[str, Any], text: str, becomes: str) -> None:
    assert spelled(text, RecognitionParams(**rule)) == becomes


def test_frames_say_a_text_and_when() -> None:
    tokens = (*SPECIAL, "a", "b")
    # nothing, a a, nothing, a, space, space, b b
    found = decoded(np.array([0, 3, 3, 0, 3, 2, 2, 4, 4]), tokens, 0.02)
    assert found.text == "aa b"
    assert found.words == [Word("aa", 0.02, 0.1), Word("b", 0.14, 0.18)]
    assert decoded(np.array([0, 0, 2]), tokens, 0.02).text == "" and decoded(np.array([], int), tokens, 1).words == []
    assert frames_needed("aab") == 4 and frames_needed("") == 0
    assert vocabulary_of(["b a", "c"]) == (*SPECIAL, "a", "b", "c")


def test_what_ctc_cannot_say_is_not_learned_and_counted_with_characters_that_are_new(learnt: Recognizer) -> None:
    clips = Clips.of([np.arange(1600, dtype=np.int16)] * 3, 8000)  # 7 frames each
    found = utterances_of(clips, ["Abcabcaac!", "cab, {x", ""], learnt)
    assert found.missing.tolist() == [3, 0, 0] and found.unknown.tolist() == [0, 1, 0]
    told = lost_tokens(found)
    assert told is not None and told.examples == 2
    assert "1 longer than the frames" in told.told("clips") and "1 of characters that no" in told.told("clips")
    assert told.metrics("val") == {
        "val_too_long": 1, "val_unknown_characters": 1, "val_punctuation_only": 0, "val_respelled": 2
    }  # fmt: skip
    log_probabilities, frames = learnt.log_probabilities(found)
    assert frames.tolist() == [7, 7, 7]
    losses = learnt.losses(found, log_probabilities, frames)
    assert losses[0] == 0 and losses[1] > losses[2] > 0
    answers = learnt.answer(found)
    assert np.isfinite(answers.loss) and answers.measured(CER).statistics[:, 1].tolist() == [9, 5, 0]


def test_transcripts_of_punctuation_alone_are_told_from_silence(learnt: Recognizer) -> None:
    clips = Clips.of([np.arange(1600, dtype=np.int16)] * 4, 8000)
    found = utterances_of(clips, ["...", "", "?!", "a."], learnt)
    told = lost_tokens(found)
    assert told is not None and told.metrics("test")["test_punctuation_only"] == told.examples == 2
    assert "2 without a letter or digit, which count as silence" in told.told("clips")
    assert utterances_of(clips, ["...", "", "?!", "a."], learnt, punctuation="keep").lost().punctuation_only == 0


def test_the_table_by_length_has_each_utterance_and_counts_what_was_heard_in_silence(learnt: Recognizer) -> None:
    clips = Clips.of([np.arange(1600, dtype=np.int16)] * 4, 8000)
    found = utterances_of(clips, ["...", "", "one", "a b"], learnt)
    heard = [Heard(text, []) for text in ("a c", "", "one", "b b")]
    answers = Transcribed(RecognitionParams.scores, np.arange(4), 0.0, found.texts(), heard)
    section = _by_length(answers, found, RecognitionParams())
    assert section.lines == (
        ("0", "2", "2 heard", "3 heard"), ("1", "1", "0.0%", "0.0%"), ("2", "1", "50.0%", "33.3%"),
    )  # fmt: skip
    assert "1 have no letter or digit, and count as silence" in section.note
    weighed = replace(answers, weights=(np.arange(4), np.array([1.0, 1.0, 3.0, 1.0])))
    assert _by_length(weighed, found, RecognitionParams()).lines == section.lines


def test_several_processes_share_the_loss_and_what_is_hidden(released: Path, few: Utterances) -> None:
    problem = Recognition(RecognitionParams(mask_ratio=0.3, span=3, precision="float32"))
    torch.manual_seed(0)
    model = problem.build(released / "trunk", read_schema(released / "dataset"), scratch=True)
    assert isinstance(model, Recognizer)
    model.begin(few)
    torch.nn.init.normal_(model.network.lm_head.weight)  # type: ignore[union-attr]
    whole = float(model.loss(few, 0, 1).detach())
    parts = [float(model.loss(few, 0, 1, World(rank=rank, size=2, local_size=2))) for rank in range(2)]
    assert sum(parts) == pytest.approx(whole, rel=1e-4) and whole != pytest.approx(
        float(model.loss(few, 0, 2)), rel=1e-4
    )
    weighed = few.weighted(torch.tensor([2.0] * 10 + [0.0] * 10))
    half = float(model.loss(weighed, 0, 1))
    assert half != pytest.approx(whole, rel=1e-3)


def test_utterances_are_taken_and_shared_as_they_are(few: Utterances) -> None:
    some = few.take(torch.tensor([4, 1, 1]))
    assert some.texts() == [few.texts()[place] for place in (4, 1, 1)]
    assert all((one == few.waves()[place]).all() for one, place in zip(some.waves(), (4, 1, 1), strict=True))
    same = Utterances.from_arrays(some.arrays())
    assert same.digest() == some.digest() != few.take(torch.tensor([4, 1, 2])).digest()
    batches = torch.cat([few.draw(0, step, 5) for step in range(4)])
    assert batches.sort().values.tolist() == list(range(20))


def test_it_is_measured_with_intervals_and_lift(released: Path) -> None:
    metrics = read(released / "evaluation/metrics.json")
    assert metrics["primary"] == "cer" and metrics["scores"]["cer"]["direction"] == "lower"
    assert metrics["cer_low"] <= metrics["cer"] <= metrics["cer_high"]
    assert metrics["test_respelled"] >= 0 and metrics["test_too_long"] == 0
    predictions = pq.read_table(released / "evaluation/predictions.parquet").to_pydict()
    assert metrics["wer"] == pytest.approx(jiwer.wer(predictions["said"], predictions["heard"]), abs=1e-9)
    assert metrics["cer"] == pytest.approx(jiwer.cer(predictions["said"], predictions["heard"]), abs=1e-9)
    lift = read(released / "evaluation/lift.json")
    assert lift["amount"] == "utterances" and {run["examples"] for run in lift["runs"]} == {20}
    values = {(run["arm"], run["seed"]): run["value"] for run in lift["runs"]}
    gains = [values["scratch", seed] - values["trunk", seed] for seed in (0, 1)]
    assert metrics["lift_20"] == pytest.approx(np.mean(gains))


def test_the_report_shows_edits_errors_by_length_and_words_in_time(released: Path) -> None:
    page = write_report(released, open_store(str(released / "store")), released / "report.html").read_text()
    assert "Errors by length" in page and "less is better" in page and "data:image/png" in page
    assert "data:audio/flac" in page and "media-src data:" in page, "a browser may play its clips"
    sections = read(released / "evaluation/sections.json")
    lines = {line[0]: int(line[1]) for line in sections[0]["lines"]}
    assert sum(lines.values()) == read(released / "evaluation/metrics.json")["n_test"]
    assert all("[-" in line[0] or "{+" in line[0] for line in sections[1]["lines"])
    assert (released / "evaluation" / sections[2]["picture"]).read_bytes().startswith(b"\x89PNG")


def test_predict_hears_files_for_a_person_and_for_a_program(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = small_speech.prompts()["audio"][0]["bytes"]
    (tmp_path / "a.ogg").write_bytes(audio)
    samples, _ = soundfile.read(io.BytesIO(audio))
    soundfile.write(tmp_path / "b.wav", np.repeat(samples, 2), 16000)
    for options in ([], ["--json"]):
        command = ["graftline", "predict", "digits@1", str(tmp_path), "--store", str(released / "store"), *options]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None)
        out, err = capsys.readouterr()
        assert "resampled" in err
    answers = json.loads(out)
    assert len(answers) == 2 and all(set(answer) == {"input", "text", "words"} for answer in answers)


def test_what_does_not_fit_is_refused_in_a_line(
    released: Path, learnt: Recognizer, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    problem = Recognition(RecognitionParams())
    with pytest.raises(InputError, match="no model of speech; expected a trunk of sound"):
        problem.read(released / "dataset", "test", small_text.trunk(tmp_path_factory.getbasetemp()))
    learnt.save(tmp_path)
    for tokens in ({"<pad>": 0}, {**{"<pad>": 1, "<unk>": 0}, **{str(n): n for n in range(2, len(learnt.tokens))}}):
        (tmp_path / "vocab.json").write_text(json.dumps(tokens))
        with pytest.raises(InputError, match=r"vocab\.json"):
            read_vocabulary(tmp_path, len(learnt.tokens))


def test_the_trunks_objective_may_go_on_beside_and_a_frozen_trunk_stays(released: Path, tmp_path: Path) -> None:
    finetune = {**small_speech.FINETUNE, "min_steps": 2, "joint_weight": 0.5, "freeze_trunk": False}
    inputs = {"in_dataset": released / "dataset", "in_trunk": released / "trunk"}
    small.make("finetune", {"finetune": finetune}, **inputs, out_model=tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert isinstance(model, Recognizer) and read_problem(tmp_path / "model").plural == "utterances"
    model.freeze_trunk()
    assert not model.trunk_parameters()


def test_what_cannot_be_said_or_heard_goes_to_the_quarantine(tmp_path: Path) -> None:
    columns = {name: values[:40] for name, values in small_speech.prompts().items()}
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(8000), 8000, format="WAV")
    said = columns["transcript"]
    said[3], said[5], said[7], said[9], said[11] = "", "  ", "far too much " * 9, "<silence>", None
    columns["audio"][13] = {"bytes": silence.getvalue(), "path": "silence.wav"}
    contract = json.loads(json.dumps(small_speech.CONTRACT))
    contract["columns"]["transcript"]["silence"] = "<silence>"
    (tmp_path / "raw").mkdir()
    pq.write_table(small_speech.table(columns), tmp_path / "raw/a.parquet")
    (tmp_path / "expectations.yaml").write_text(json.dumps(contract))
    inputs = {"in_raw": tmp_path / "raw", "in_expectations": tmp_path / "expectations.yaml"}
    document = {"validate": {"max_bad_fraction": 0.2}}
    small.make("validate", document, **inputs, out_dataset=tmp_path / "dataset", store=tmp_path / "store")
    bad = pq.read_table(tmp_path / "dataset/quarantine.parquet").to_pydict()
    broken = dict(zip(bad["row"], bad["rule"], strict=True))
    assert broken.pop(11, "unlabelled_in_test") == "unlabelled_in_test"  # as its samples draw it
    assert broken == {
        3: "transcript.empty", 5: "transcript.empty", 7: "transcript.max_rate", 13: "audio.min_level"
    }  # fmt: skip
    splits = [pq.read_table(tmp_path / f"dataset/{split}.parquet").to_pylist() for split in ("train", "val", "test")]
    labelled = {row["row"]: row["transcript"] for rows in splits for row in rows}
    assert labelled[9] == "" and 11 not in labelled
