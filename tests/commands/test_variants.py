"""An entry of a study's methods means what it says, or is refused."""

from dataclasses import asdict, fields

import pytest

from kontrast.commands.assemble import EncoderOptions
from kontrast.commands.variants import encoder_options, spelled_out, variant
from kontrast.errors import InputError
from kontrast.methods import BYOL, EBCLR, METHODS, LearnedViews, SimCLR

CONTRASTIVE = sorted(set(METHODS) - {"supervised"})


def changed(config):
    """What differs from the defaults."""
    default = asdict(type(config)())
    return {name: value for name, value in asdict(config).items() if value != default[name]}


@pytest.mark.parametrize("name", CONTRASTIVE)
@pytest.mark.parametrize("colon", ["", ":"])
def test_a_name_alone_is_the_method_with_its_defaults_and_the_policy_of_the_study(name, colon):
    found = variant(name + colon, {})
    assert found.key == found.method == name
    assert found.title == METHODS[name].__name__
    assert found.config == METHODS[name].Config()
    assert found.policy is None


@pytest.mark.parametrize(
    ("text", "expected", "policy"),
    [
        ("simclr:temperature=0.1", {"temperature": 0.1}, None),
        ("simclr:temperature=1", {"temperature": 1.0}, None),
        ("simclr:temperature=5e-2,width=64", {"temperature": 0.05, "width": 64}, None),
        ("byol:momentum=0.9,hidden=32,width=8", {"momentum": 0.9, "hidden": 32, "width": 8}, None),
        ("simclr:policy=xray", {}, "xray"),
        ("learned_views:mode=adversarial,policy=runs/a/policy.yaml", {"mode": "adversarial"}, "runs/a/policy.yaml"),
        ("learned_views:policy=mri,producer=network,start=0", {"producer": "network", "start": 0.0}, "mri"),
        ("moco:policy=a=b.yaml", {}, "a=b.yaml"),
    ],
)
def test_settings_behind_the_colon_differ_from_the_defaults_and_all_others_do_not(text, expected, policy):
    found = variant(text, {})
    assert found.method == text.partition(":")[0]
    assert changed(found.config) == expected
    assert found.policy == policy
    types = {f.name: type(getattr(METHODS[found.method].Config(), f.name)) for f in fields(found.config)}
    assert {name: type(value) for name, value in asdict(found.config).items()} == types


def test_an_arm_may_have_weights_and_norms_of_its_own():
    found = variant("simsiam:layers=2,affine=true,init=none,norm=batch,norm_affine=keep", {})
    assert (found.config.layers, found.config.affine) == (2, True)
    assert found.shared == {"init": "none", "norm": "batch", "norm_affine": "keep"}
    chosen = encoder_options(EncoderOptions(encoder="resnet10t", init="a.npz", policy="ct"), found)
    expected = EncoderOptions(encoder="resnet10t", policy="ct", init="none", norm="batch", norm_affine="keep")
    assert chosen == expected


def test_settings_given_for_the_method_hold_where_the_entry_says_nothing_else():
    configs = {"simclr": SimCLR.Config(temperature=0.7, width=16), "byol": BYOL.Config(width=8)}
    assert variant("simclr", configs).config == SimCLR.Config(temperature=0.7, width=16)
    assert variant("simclr:temperature=0.1", configs).config == SimCLR.Config(temperature=0.1, width=16)
    assert variant("moco", configs).config == METHODS["moco"].Config()
    assert configs["simclr"] == SimCLR.Config(temperature=0.7, width=16)


def test_variants_of_one_method_have_keys_of_their_own_that_can_name_files():
    texts = [
        "simclr",
        "simclr:temperature=0.1",
        "simclr:temperature=0.2",
        "simclr:width=64",
        "simclr:policy=xray",
        "simclr:policy=runs/a/policy.yaml",
        "learned_views",
        "learned_views:mode=adversarial",
    ]
    keys = [variant(text, {}).key for text in texts]
    assert len(set(keys)) == len(keys)
    assert all(key.isidentifier() and key.isascii() for key in keys)
    assert keys[0] == "simclr"
    assert keys[1].startswith("simclr_temperature_0_1")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("simclr:temperature=0.5", "simclr:temperature=05"),
        ("simclr:temperature=1e-1", "simclr:temperature=1e1"),
        ("simclr:policy=ct", "simclr:policy=mri"),
        ("learned_views:mode=semi", "learned_views:mode=supervised"),
    ],
)
def test_entries_that_mean_different_things_have_different_keys(one, other):
    assert variant(one, {}).key != variant(other, {}).key


def test_the_title_names_the_method_and_what_is_different():
    assert variant("learned_views:mode=semi,policy=ct", {}).title == "LearnedViews (mode=semi, policy=ct)"


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("simclr", False),
        ("byol:momentum=0.9", False),
        ("learned_views", True),
        ("learned_views:mode=supervised", True),
        ("learned_views:mode=cooperative,policy=ct", True),
        ("learned_views:mode=adversarial", False),
    ],
)
def test_whether_labels_shape_the_encoder_is_a_matter_of_the_settings(text, reads):
    assert variant(text, {}).reads_labels == reads


def test_the_settings_given_for_the_method_decide_on_labels_as_well():
    configs = {"learned_views": LearnedViews.Config(mode="adversarial")}
    assert not variant("learned_views", configs).reads_labels
    assert variant("learned_views:mode=semi", configs).reads_labels


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("simcrl", r"there is no method 'simcrl': did you mean simclr\?"),
        ("simcrl:temperature=0.1", r"there is no method 'simcrl': did you mean simclr\?"),
        ("", "there is no method ''"),
        ("supervised", "always in a study, as its baseline; leave it out of --methods"),
        ("supervised:dropout=0.1", "always in a study"),
        ("simclr:temprature=0.1", r"there is no setting of simclr 'temprature': did you mean temperature\?"),
        ("simclr:momentum=0.1", "choose one of init, norm, norm_affine, policy, temperature, width"),
        ("simclr:=0.1", "there is no setting of simclr ''"),
        ("simclr:temperature", r"written simclr:KEY=VALUE,KEY=VALUE; got 'simclr:temperature'"),
        ("simclr:width=64,cosine", r"written simclr:KEY=VALUE,KEY=VALUE; got 'simclr:width=64,cosine'"),
        ("simclr:temperature=warm", "temperature is a float, such as 0.2; 'simclr:temperature=warm' has 'warm'"),
        ("simclr:temperature=", "temperature is a float, such as 0.2; .* has ''"),
        ("simsiam:affine=yes", "affine is a bool, such as False; .* has 'yes'"),
        ("simsiam:norm=bach", r"there is no norm 'bach': did you mean batch\?"),
        ("simsiam:norm_affine=new", "there is no norm_affine 'new': choose one of keep, recalibrate, reset"),
        ("simclr:width=64.5", "width is a int, such as 128; .* has '64.5'"),
        ("byol:hidden=0x10", "hidden is a int, such as 1024; .* has '0x10'"),
    ],
)
def test_an_entry_that_means_nothing_is_refused_in_one_sentence(text, said):
    with pytest.raises(InputError, match=said):
        variant(text, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "learned_views:mode=advesarial",
            "mode is one of semi, adversarial, supervised, cooperative; got 'advesarial'",
        ),
        ("learned_views:producer=net", "'net'"),
        ("learned_views:start=0.9", "at least 0 and below freeze; got 0.9"),
        ("simclr:policy=xrai", "there is no policy 'xrai': did you mean xray?"),
        ("simclr:policy=gone.yaml", "there is no file gone.yaml"),
        ("simclr:policy=TMP/colour.yaml", "hue changes colour"),
    ],
)
def test_a_study_refuses_a_method_that_cannot_be_trained_before_it_trains_the_others(
    text, said, images, training, scoring, refused, tmp_path
):
    (tmp_path / "colour.yaml").write_text("hue: 0.1\n")
    text = text.replace("TMP", str(tmp_path))
    words = ["study", images, *training, *scoring, "--methods", "byol", text, "--out", tmp_path / "study"]
    assert said in refused(*words)
    assert not list(tmp_path.glob("study/runs/*/*/*"))


@pytest.mark.parametrize(
    ("methods", "meant"),
    [
        ("simclr byol", "simclr byol"),
        ("ebclr", "ebclr:norm=none"),
        ("simclr ebclr byol", "simclr ebclr:norm=none byol simclr:norm=none"),
        ("ebclr:gen_weight=0 ebclr", "ebclr:gen_weight=0,norm=none ebclr:norm=none"),
        ("simclr:temperature=0.1 ebclr", "simclr:temperature=0.1 ebclr:norm=none simclr:temperature=0.1,norm=none"),
        ("simclr:norm=none simclr ebclr", "simclr:norm=none simclr ebclr:norm=none"),
        ("simclr:norm=group ebclr", "simclr:norm=group ebclr:norm=none"),
        ("simclr ebclr:norm=none", "simclr ebclr:norm=none"),
        ("simclr ebclr:norm=group", "simclr ebclr:norm=group"),
        ("simclr ebclr:allow_batch_norm=true", "simclr ebclr:allow_batch_norm=true"),
        ("ebclr ebclr:norm=none", "ebclr:norm=none"),
        (
            "simclr:norm=none,temperature=0.1 simclr:temperature=0.1 ebclr",
            "simclr:norm=none,temperature=0.1 simclr:temperature=0.1 ebclr:norm=none",
        ),
    ],
)
def test_where_a_method_cannot_have_batch_norm_simclr_is_trained_both_ways(methods, meant):
    found = spelled_out(methods.split(), {}, EncoderOptions())
    assert found == tuple(meant.split())
    assert spelled_out(found, {}, EncoderOptions()) == found


def test_an_arm_with_given_weights_or_norms_is_left_as_it_is():
    texts = ("simclr", "ebclr", "ebclr:init=none")
    assert spelled_out(texts, {}, EncoderOptions(init="pretrained")) == ("simclr", "ebclr", "ebclr:init=none,norm=none")
    assert spelled_out(texts, {}, EncoderOptions(norm="batch")) == texts


def test_settings_given_for_the_method_may_allow_it_batch_norm():
    configs = {"ebclr": EBCLR.Config(allow_batch_norm=True)}
    assert spelled_out(["simclr", "ebclr"], configs, EncoderOptions()) == ("simclr", "ebclr")
