"""Where models are found, and what tells two of them apart."""

from __future__ import annotations

import shutil

import pytest

from cictl.errors import ModelAccessError
from cictl.models.locate import locate_base


def test_a_copy_elsewhere_has_the_same_identity(base, tmp_path):
    copy = shutil.copytree(base, tmp_path / "moved")
    assert locate_base(str(copy)).identity == locate_base(str(base)).identity


def test_one_changed_weight_gives_another_identity(base, tmp_path):
    copy = shutil.copytree(base, tmp_path / "changed")
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert locate_base(str(copy)).identity != locate_base(str(base)).identity


@pytest.mark.parametrize("name", ["scheduler/scheduler_config.json", "tokenizer/merges.txt", "unet/config.json"])
def test_so_does_another_way_to_read_or_draw_with_the_same_weights(base, tmp_path, name):
    copy = shutil.copytree(base, tmp_path / "changed")
    (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
    assert locate_base(str(copy)).identity != locate_base(str(base)).identity


def test_and_so_does_the_same_file_under_a_name_by_which_it_is_not_read(base, tmp_path):
    copy = shutil.copytree(base, tmp_path / "changed")
    (copy / "clip" / "preprocessor_config.json").rename(copy / "clip" / "preprocessor_config.old.json")
    assert locate_base(str(copy)).identity != locate_base(str(base)).identity


@pytest.mark.parametrize("name", ["nowhere", "/nowhere/at/all", "./nowhere", "a/b/c"])
def test_what_is_neither_a_folder_nor_an_id_is_refused_without_asking_the_network(name):
    with pytest.raises(ModelAccessError, match="neither a folder nor a file here, nor an id") as caught:
        locate_base(name)
    assert caught.value.exit_code == 4


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelAccessError, match=r"unet/config\.json"):
        locate_base(str(tmp_path))


@pytest.mark.parametrize("within", ["snapshots/0000", "tiny", "tiny.safetensors"])
def test_a_folder_with_a_model_in_it_is_refused_with_what_to_give_in_its_place(base, tmp_path, within):
    (tmp_path / within).parent.mkdir(exist_ok=True)
    (tmp_path / within).symlink_to(base if "." not in within else base / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(ModelAccessError, match=r"holds no unet/config\.json") as refused:
        locate_base(str(tmp_path))
    assert refused.value.hint == f"set model.id in ci.yaml to what lies in it: {tmp_path / within}"


def test_an_id_that_was_never_downloaded_is_refused_offline_with_what_to_do():
    with pytest.raises(ModelAccessError, match="not on this machine") as caught:
        locate_base("nobody-at-all/nothing-at-all", offline=True)
    assert caught.value.hint.splitlines()[-1].startswith("cictl demo ")
