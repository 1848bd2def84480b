"""Trunks of sound: padding changes nothing, hidden frames are told by the others, and public checkpoints are taken."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
import small_clips

from graftline.errors import InputError
from graftline.learning.distributed import World
from graftline.learning.randomness import generator
from graftline.trunks import rootstock
from graftline.trunks.audio.masked_units import MaskedUnits, hide
from graftline.trunks.audio.parameters import AudioRootstockParams, HubertParams, MaskedUnitsParams
from graftline.trunks.audio.rootstock import open_checkpoint
from graftline.trunks.audio.trunk import AudioTrunk, frames_of, inputs, new_network, seen_samples, start_filters
from graftline.trunks.audio.units import MELS, k_means, log_mel, nearest
from graftline.values.audio import AudioColumn

SHAPE = HubertParams.model_validate(small_clips.TRUNK)
AUDIO = AudioColumn("audio", 8000)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.normal(0, 2000, n).astype(np.int16) for n in (4000, 5300, 9000, 12_000)]


def made(params: MaskedUnitsParams | None = None) -> MaskedUnits:
    torch.manual_seed(0)
    objective = MaskedUnits(
        AudioTrunk(new_network(SHAPE, 8000), 8000), params or MaskedUnitsParams(clusters=7), "float32"
    )
    objective.head.centres.copy_(torch.randn(objective.head.centres.shape))
    return objective


def test_a_clip_in_a_batch_is_as_it_is_alone(clips: list[np.ndarray]) -> None:
    network = new_network(SHAPE, 8000).eval()
    with torch.no_grad():
        together = network(**inputs(clips, network.config, CPU)).last_hidden_state
        counts = frames_of(network.config, np.array([len(clip) for clip in clips]))
        for place, clip in enumerate(clips):
            alone = network(**inputs([clip], network.config, CPU)).last_hidden_state[0]
            assert len(alone) == counts[place]
            assert torch.allclose(together[place, : len(alone)], alone, atol=1e-4)


def test_the_trunk_hides_in_the_model_that_transformers_runs(clips: list[np.ndarray]) -> None:
    network = new_network(SHAPE, 8000).eval()
    taken = inputs(clips, network.config, CPU)
    frames = torch.from_numpy(frames_of(network.config, np.array([len(clip) for clip in clips])))
    instead = torch.zeros(SHAPE.width)
    with torch.no_grad():
        theirs = network(**taken).last_hidden_state
        nothing = torch.zeros(theirs.shape[:2], dtype=torch.bool)
        ours = AudioTrunk(network, 8000)(taken["input_values"], frames, nothing, instead)
        assert torch.equal(ours, theirs)
        some = nothing.clone()
        some[0, 3] = True
        assert not torch.equal(AudioTrunk(network, 8000)(taken["input_values"], frames, some, instead)[0], theirs[0])


def test_a_clip_shorter_than_a_frame_gets_zeros() -> None:
    network = new_network(SHAPE, 8000)
    taken = inputs([np.ones(5, np.int16)], network.config, CPU)
    assert taken["input_values"].shape == (1, seen_samples(network.config)) and taken["attention_mask"].all()
    assert frames_of(network.config, np.array([5, seen_samples(network.config)])).tolist() == [0, 1]


def test_filters_begin_as_those_of_a_spectrogram() -> None:
    """A tone is loudest in the channels of its frequency, and both begin alike: a scratch arm is no worse off."""
    network: Any = new_network(SHAPE, 8000)
    first = network.feature_extractor.conv_layers[0].conv
    tone = torch.sin(2 * torch.pi * 900 * torch.arange(800) / 8000)[None, None]
    power = torch.nn.functional.conv1d(tone, first.weight, stride=40).square().mean(dim=2)[0]
    pairs = (power / first.weight[:, 0].square().sum(dim=1)).view(2, -1).sum(dim=0)
    mel = [2595 * math.log10(1 + hertz / 700) for hertz in (80, 3800, 900)]
    expected = (mel[2] - mel[0]) / (mel[1] - mel[0]) * (len(pairs) - 1)
    assert abs(int(pairs.argmax()) - expected) < 1
    torch.manual_seed(5)
    start_filters(network, 8000)
    smooth = network.feature_extractor.conv_layers[1].conv.weight
    assert torch.allclose(smooth, smooth.flip(2), atol=1e-6)


def test_about_the_share_is_hidden_and_of_each_clip_something() -> None:
    frames, params = torch.randint(1, 90, (400,), generator=generator(0, 0, "x")), MaskedUnitsParams(mask_ratio=0.4)
    hidden = hide(frames, params, generator(0, 1, "mask"))
    inside = torch.arange(hidden.shape[1]) < frames[:, None]
    assert not (hidden & ~inside).any() and hidden.any(dim=1).all()
    assert float(hidden.sum() / inside.sum()) == pytest.approx(0.4, abs=0.03)
    assert torch.equal(hidden, hide(frames, params, generator(0, 1, "mask")))


def test_processes_share_a_step(clips: list[np.ndarray]) -> None:
    objective = made()
    whole = objective.loss(clips, 3, 5)
    parts = [objective.loss(clips, 3, 5, World(rank, 2)) for rank in (0, 1)]
    assert torch.allclose(whole, parts[0] + parts[1], atol=1e-5)
    assert not torch.allclose(whole, objective.loss(clips, 3, 6))


def test_of_a_long_clip_a_piece_is_seen(clips: list[np.ndarray]) -> None:
    objective = made(MaskedUnitsParams(clusters=7, crop_seconds=0.5))
    pieces = objective.pieces(clips * 9, generator(0, 0, "crop"))
    assert {len(piece) for piece in pieces} == {4000}
    assert len({piece.tobytes() for piece in pieces}) > 4


def test_spectra_stand_where_the_frames_do() -> None:
    step, seen, rate = 160, 370, 8000
    waves = torch.zeros(1, 16_000)
    waves[0, 8000:8400] = torch.sin(2 * torch.pi * 1000 * torch.arange(400) / rate)
    found = log_mel(waves, rate, step, seen, (16_000 - seen) // step + 1)[0]
    assert found.shape == (98, MELS)
    loudest = int(found.max(dim=1).values.argmax())
    assert abs(loudest * step + seen / 2 - 8200) <= step
    low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (60, 4000))
    edges = 700 * (10 ** (torch.linspace(low, high, MELS + 2) / 2595) - 1)
    band = int(found[loudest].argmax())
    assert edges[band] < 1000 < edges[band + 2]


@pytest.mark.parametrize("step", [80, 128, 160, 200, 240, 320, 441, 640])
def test_windows_of_spectra_overlap_at_each_length_of_a_frame(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two frames nothing is lost: a window is about two frames long, from 1.4 to 2.9."""
    sizes: list[int] = []
    real = torch.stft

    def stft(waves: torch.Tensor, size: int, *more: Any, **how: Any) -> torch.Tensor:
        sizes.append(size)
        return real(waves, size, *more, **how)

    monkeypatch.setattr(torch, "stft", stft)
    log_mel(torch.randn(1, 10 * step), 16_000, step, step, 10)
    assert 1.4 * step < sizes[0] < 2.9 * step


def test_k_means_finds_heaps() -> None:
    draw = generator(0, 0, "x")
    heaps = torch.tensor([0.0, 5.0, 10.0])[:, None, None] + 0.1 * torch.randn(3, 50, 4, generator=draw)
    centres = k_means(heaps.flatten(0, 1), 3, generator(0, 1, "units"))
    of = nearest(heaps, centres)
    assert all(len(set(row.tolist())) == 1 for row in of) and len(set(of[:, 0].tolist())) == 3
    assert len(k_means(torch.randn(2, 4), 5, draw)) == 5, "fewer frames than clusters"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def test_pretraining_is_the_same_twice_and_its_loss_falls(home: Path, tmp_path: Path) -> None:
    trunk = small_clips.trunk(home)
    small.make("pretrain", small_clips.PARAMS, in_dataset=small_clips.dataset(home), out_trunk=tmp_path / "again")
    for name in ("model.safetensors", "objective.safetensors", "config.json", "preprocessor_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (trunk / name).read_bytes(), name
    from transformers import AutoModel, HubertModel

    losses = [json.loads(line)["loss"] for line in (trunk / "metrics.jsonl").read_text().splitlines()]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.1
    assert isinstance(AutoModel.from_pretrained(trunk), HubertModel), "without Graftline too"


# Checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wav2vec 2.0 with a head for letters, as its authors would save it."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    monkeypatch.setattr(rootstock, "ROOT", tmp_path)
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8, 8),
        conv_kernel=(20, 8, 8), conv_stride=(10, 4, 4), num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2, vocab_size=9,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(tmp_path / "model")
    Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=True).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_a_checkpoint_is_taken_as_it_is_and_goes_on(checkpoint: Path, home: Path) -> None:
    from transformers import AutoModel, Wav2Vec2ForCTC

    network = open_checkpoint(checkpoint, AUDIO)
    theirs = Wav2Vec2ForCTC.from_pretrained(checkpoint).wav2vec2.state_dict()
    assert {name: w.tolist() for name, w in theirs.items()} == {n: w.tolist() for n, w in network.state_dict().items()}
    drops = [module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)]
    assert drops and not any(drops), "what a step draws is a function of (seed, step)"
    trunk = {"name": "audio_rootstock", "path": "model"}
    document = {"pretrain": {**small_clips.PARAMS["pretrain"], "trunk": trunk, "epochs": 0.5, "learning_rate": 0.01}}
    out = checkpoint.parent / "trunk"
    small.make("pretrain", document, in_dataset=small_clips.dataset(home), out_trunk=out)
    learnt = AutoModel.from_pretrained(out).state_dict()
    assert any(not torch.equal(learnt[name], theirs[name]) for name in theirs)
    named = {d["name"] for d in json.loads((out / "record.json").read_text())["predicate"]["buildDefinition"][
        "resolvedDependencies"
    ]}  # fmt: skip
    assert "rootstock" in named


def test_quiet_clips_are_scaled_as_transformers_does(clips: list[np.ndarray]) -> None:
    """Its extractor adds 1e-7 to the variance of samples from -1 to 1: of a clip at -65 dB that is a third."""
    from transformers import Wav2Vec2FeatureExtractor

    quiet = (clips[0] / 100).astype(np.int16)
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=8000, do_normalize=True)
    theirs = extractor(quiet / np.float32(32768), sampling_rate=8000, return_tensors="np").input_values
    ours = inputs([quiet], new_network(SHAPE, 8000).config, CPU)["input_values"].numpy()
    assert np.abs(ours - theirs).max() < 1e-3 and ours.std() < 0.95


def test_a_checkpoint_that_does_not_fit_is_refused(checkpoint: Path) -> None:
    change(checkpoint / "config.json", add_adapter=True)
    with pytest.raises(InputError, match="add_adapter true"):
        open_checkpoint(checkpoint, AUDIO)
    change(checkpoint / "config.json", add_adapter=False)
    with pytest.raises(InputError, match=r"sampling_rate 8000, the dataset's clips have 16000; .*set `rate`"):
        open_checkpoint(checkpoint, AudioColumn("audio", 16_000))
    change(checkpoint / "preprocessor_config.json", do_normalize=False)
    with pytest.raises(InputError, match="do_normalize False; expected true"):
        open_checkpoint(checkpoint, AUDIO)
    (checkpoint / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"preprocessor_config\.json: the file is missing"):
        open_checkpoint(checkpoint, AUDIO)
    change(checkpoint / "config.json", model_type="gpt2")
    with pytest.raises(InputError, match="model_type 'gpt2'; expected hubert or wav2vec2"):
        open_checkpoint(checkpoint, AUDIO)
    assert AudioRootstockParams(path="model").trained


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="width 40 is no multiple of heads 4 and of 16"):
        HubertParams(width=40)
    with pytest.raises(ValueError, match="3 kernels for 2 strides"):
        HubertParams(kernels=(3, 3, 3))
