"""Pre-training from the command line: killed, interrupted, resumed, repeated, refused."""

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import kontrast as package
from kontrast.cli import main
from kontrast.nn.encoders import load_encoder
from kontrast.train.log import TIMING, read_rows

LONG = ["--epochs", "24", "--evaluate-every", "8"]


def reproducible(out):
    return [{k: v for k, v in row.items() if k not in TIMING} for row in read_rows(out / "metrics.jsonl")]


def weights(out):
    return (out / "encoder.safetensors").read_bytes()


def test_a_run_killed_at_any_moment_resumes_to_the_metrics_and_weights_of_an_unbroken_one(
    images, training, kontrast, interrupted, tmp_path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = ["pretrain", "moco", images, *training, *LONG]
    code, _ = interrupted(
        [*words, "--out", killed], when=lambda: len(read_rows(killed / "metrics.jsonl")) >= 5, send=signal.SIGKILL
    )
    assert code == -signal.SIGKILL
    assert not (killed / "encoder.safetensors").exists()
    assert kontrast(*words, "--out", killed, "--resume") == 0
    assert kontrast(*words, "--out", whole) == 0
    assert len(reproducible(killed)) == 24
    assert reproducible(killed) == reproducible(whole)
    assert weights(killed) == weights(whole)


def test_ctrl_c_ends_with_130_and_one_sentence_of_what_is_kept_and_the_run_can_be_finished(
    images, training, kontrast, interrupted, tmp_path
):
    out = tmp_path / "run"
    words = ["pretrain", "simclr", images, *training, "--epochs", "24", "--out", out]
    code, said = interrupted(words, when=lambda: len(read_rows(out / "metrics.jsonl")) >= 2, send=signal.SIGINT)
    assert code == 130, said
    assert "Traceback" not in said
    last = " ".join(said[said.index("kontrast: stopped") :].split())
    assert last.startswith(f"kontrast: stopped; {out} keeps the checkpoint of epoch ")
    assert last.endswith("go on with --resume")
    assert kontrast(*words, "--resume") == 0
    assert [row["epoch"] for row in read_rows(out / "metrics.jsonl")] == list(range(1, 25))


def test_a_folder_that_holds_another_run_is_refused_with_the_way_out(run, images, training, refused):
    before = weights(run)
    said = refused("pretrain", "simclr", images, *training, "--out", run)
    assert "must be a new or empty folder" in said
    assert "add --resume or name another" in said
    assert weights(run) == before


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--lr", 0.5, "lr was 0.06"),
        ("--epochs", 9, "epochs was 2"),
        ("--temperature", 0.7, "temperature was 0.2"),
        ("--seed", 3, "seed was 0"),
        ("--policy", "digits", "policy was 'natural'"),
    ],
)
def test_resuming_with_a_changed_setting_is_refused_by_its_name(flag, value, said, run, images, training, refused):
    answer = refused("pretrain", "simclr", images, *training, flag, value, "--out", run, "--resume")
    assert "a resumed run keeps its settings" in answer
    assert said in answer


def test_resuming_on_changed_images_or_labels_is_refused(draw_folder, training, kontrast, refused, tmp_path):
    folder, out = draw_folder(tmp_path / "images", count=12), tmp_path / "run"
    words = ["pretrain", "simclr", folder, *training, "--out", out]
    assert kontrast(*words) == 0
    shutil.move(folder / "dark/00.png", folder / "light/99.png")
    assert "images, labels or the split have changed" in refused(*words, "--resume")
    shutil.move(folder / "light/99.png", folder / "dark/00.png")
    assert kontrast(*words, "--resume") == 0
    Image.new("L", (16, 16), 77).save(folder / "dark/00.png")
    assert "images, labels or the split have changed" in refused(*words, "--resume")


def test_pre_training_never_sees_test_images(run, images):
    known = json.loads((run / "run.json").read_text())
    assert known["images"] == 38  # a fifth of 48, rounded, is held out


def test_scores_along_the_training_and_snapshots_are_written_as_asked(images, training, kontrast, tmp_path):
    out = tmp_path / "run"
    assert (
        kontrast("pretrain", "simclr", images, *training, "--evaluate-every", 1, "--keep-every", 1, "--out", out) == 0
    )
    rows = read_rows(out / "metrics.jsonl")
    assert all(0 <= row[name] <= 1 for row in rows for name in ("knn_accuracy", "linear_accuracy"))
    snapshots = sorted((out / "encoders").glob("*.safetensors"))
    assert [file.name for file in snapshots] == ["epoch_00001.safetensors", "epoch_00002.safetensors"]
    first, last, final = (load_encoder(path).net.state_dict() for path in (*snapshots, out))
    assert all(torch.equal(last[key], final[key]) for key in final)
    assert any(not torch.equal(first[key], final[key]) for key in final)


def test_a_refused_command_does_not_take_the_folder(draw_folder, training, refused, kontrast, tmp_path):
    flat = tmp_path / "flat"
    draw_folder(flat, kinds=(".",), count=8)
    out = tmp_path / "run"
    words = ["pretrain", "simclr", flat, *training, "--out", out]
    assert "--evaluate-every scores on labelled images" in refused(*words, "--evaluate-every", 1)
    for wrong in (["--policy", "natral"], ["--lr", "-1"], ["--device", "cuda:77"], ["--batch-size", "0"]):
        refused(*words, *wrong)
    assert not out.exists()
    assert kontrast(*words) == 0


def test_supervised_pre_training_without_labels_says_that_it_needs_them(draw_folder, training, refused, tmp_path):
    flat = draw_folder(tmp_path / "flat", kinds=(".",), count=8)
    said = refused("pretrain", "supervised", flat, *training, "--out", tmp_path / "run")
    assert "supervised learning needs labels" in said
    assert "--labels" in said


def test_a_recipe_repeats_a_run_to_the_byte_and_typed_flags_win(run, kontrast, tmp_path):
    assert kontrast("pretrain", "--recipe", run / "config.yaml", "--out", tmp_path / "again") == 0
    assert weights(tmp_path / "again") == weights(run)
    recipe = ["--recipe", run / "config.yaml", "--epochs", 1, "--temperature=0.5"]
    assert kontrast("pretrain", *recipe, "--out", tmp_path / "other") == 0
    assert len(read_rows(tmp_path / "other/metrics.jsonl")) == 1
    assert "temperature: 0.5" in (tmp_path / "other/config.yaml").read_text()


def test_method_and_data_that_were_typed_win_over_a_recipe(run, draw_folder, kontrast, tmp_path):
    other = draw_folder(tmp_path / "others", count=10)
    recipe = tmp_path / "recipe.yaml"
    lines = (run / "config.yaml").read_text().splitlines()
    recipe.write_text("\n".join(line for line in lines if not line.startswith(("temperature", "width"))))
    assert kontrast("pretrain", "byol", other, "--recipe", recipe, "--epochs", 1, "--out", tmp_path / "run") == 0
    config = (tmp_path / "run/config.yaml").read_text()
    assert "method: byol" in config
    assert f"data: {other}" in config


def test_a_torch_data_set_trains_and_resumes_from_python(training, tmp_path):
    class Noise(torch.utils.data.Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, at):
            return torch.from_numpy(np.random.default_rng(at).integers(0, 256, (1, 16, 16), dtype=np.uint8))

    settings = {"method": "simclr", "encoder": "test_efficientnet", "stem": "standard", "epochs": 1, "batch_size": 10}
    out = package.pretrain(data=Noise(), out=str(tmp_path / "run"), **settings)
    assert "data: Noise" in (out / "config.yaml").read_text()
    assert package.pretrain(data=Noise(), out=out, resume=True, **settings) == out
    assert package.load(run=out)(torch.zeros(2, 1, 16, 16)).shape == (2, 256)


def test_the_python_call_takes_keywords_only(images, tmp_path):
    with pytest.raises(TypeError, match="positional"):
        package.pretrain("simclr", str(images), tmp_path / "run")
    with pytest.raises(TypeError, match="bacth_size"):
        package.pretrain(method="simclr", data=str(images), out=tmp_path / "run", bacth_size=4)


def test_a_run_that_runs_away_exits_with_1_and_says_what_to_change(images, training, kontrast, capsys, tmp_path):
    words = ["pretrain", "simclr", images, *training, "--lr", "1e30", "--epochs", "3", "--out", tmp_path / "run"]
    assert kontrast(*words) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("kontrast: ")
    assert "go on from the last checkpoint with a lower --lr" in last


def test_a_collapsed_run_that_is_to_stop_exits_with_1(draw_folder, training, tmp_path, kontrast, capsys):
    same = tmp_path / "same"
    same.mkdir()
    for number in range(16):
        Image.new("L", (16, 16), 0).save(same / f"{number}.png")
    words = ["pretrain", "simclr", same, *training, "--policy", "digits", "--on-collapse", "stop"]
    assert kontrast(*words, "--out", tmp_path / "run") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("kontrast: this run looks collapsed: ")


def test_a_run_is_not_resumed_under_another_content_of_its_policy_s_file(images, training, refused, tmp_path):
    policy = tmp_path / "mine.yaml"
    policy.write_text("rotation: 10\n")
    words = ["pretrain", "simclr", images, *training, "--policy", policy, "--out", tmp_path / "run"]
    assert main([str(word) for word in words]) == 0
    policy.write_text("rotation: 20\n")
    assert "a policy's file has changed" in refused(*words, "--resume")


def test_fine_tuning_takes_the_policy_that_a_run_has_learned(images, training, tmp_path):
    words = ["pretrain", "learned_views", images, *training, "--start", "0", "--out", tmp_path / "run"]
    assert main([str(word) for word in words]) == 0
    words = ["finetune", "classification", tmp_path / "run", "--epochs", "1", "--no-calibrate", "--out", tmp_path / "c"]
    assert main([str(word) for word in words]) == 0
    assert f"policy: {tmp_path / 'run' / 'policy.yaml'}" in (tmp_path / "c" / "config.yaml").read_text()
