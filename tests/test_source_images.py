"""Images and arrays: files that people really have, and bad ones."""

import csv as csv_format
import io
import json
import pickle
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from sevenfold.core.errors import BadSample, DataError
from sources import make

# Images


def picture(path, size=(8, 8), mode="RGB", color=(250, 10, 20), **options):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new(mode, size, color).save(path, **options)


def test_every_image_format_is_read(tmp_path):
    for ending in ("png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff"):
        picture(tmp_path / f"a.{ending}")
    source = make("image_folder", path=str(tmp_path))
    assert len(source) == 8
    assert source.fields == {"image": "image"}
    for index in range(8):
        image = source[index]["image"]
        assert image.shape == (8, 8, 3)
        assert abs(image.astype(int).mean((0, 1)) - [250, 10, 20]).max() < 12


def test_folders_are_labels(tmp_path):
    for n in range(4):
        picture(tmp_path / "cat" / f"{n}.png")
        picture(tmp_path / "dog" / f"{n}.png", color=(n, n, n))
    source = make("image_folder", path=str(tmp_path))
    assert source.fields == {"image": "image", "label": "label"}
    assert [source[index]["label"] for index in range(8)] == ["cat"] * 4 + ["dog"] * 4


@pytest.mark.parametrize("name", ["captions.csv", "metadata.csv", "captions.jsonl", "metadata.jsonl"])
def test_captions_from_a_table(tmp_path, name):
    rows = [{"file_name": f"in/{n}.png", "text": f"picture {n}", "label": "odd" if n % 2 else "even"} for n in range(6)]
    for n, row in enumerate(rows):
        picture(tmp_path / row["file_name"], color=(n, n, n))
    picture(tmp_path / "unnamed.png")
    if name.endswith("jsonl"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    else:
        with open(tmp_path / name, "w", newline="") as file:
            writer = csv_format.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    source = make("image_folder", path=str(tmp_path))
    assert source.fields == {"image": "image", "label": "label", "caption": "text"}
    assert source[3]["caption"] == "picture 3"
    assert source[3]["image"][0, 0, 0] == 3
    assert source[3]["label"] == "odd"
    assert "1 images are left out" in source.notes[0]


def test_captions_that_lead_out_of_the_folder_are_refused(tmp_path):
    picture(tmp_path / "secret.png")
    folder = tmp_path / "data"
    for n in range(3):
        picture(folder / f"{n}.png", color=(n, n, n))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    names = [
        "0.png",
        "../secret.png",
        str(tmp_path / "secret.png"),
        "link.png",
        "gone.png",
        "1.png",
        "a/../../secret.png",
    ]
    (folder / "captions.csv").write_text("file,caption\n" + "".join(f"{name},picture\n" for name in names))
    source = make("image_folder", path=str(folder))
    for index, why in [(1, "not in the folder")] * 3 + [(4, "no image")] + [(6, "not in the folder")]:
        with pytest.raises(BadSample, match=why) as caught:
            source[index]
        assert "captions.csv" in caught.value.where
    for index in (2, 3):
        with pytest.raises(BadSample, match="not in the folder"):
            source[index]
    assert source[0]["caption"] == source[5]["caption"] == "picture"


def test_table_without_captions_says_what_it_needs(tmp_path):
    picture(tmp_path / "0.png")
    (tmp_path / "captions.csv").write_text("who,what\n0.png,a dog\n1.png,a cat\n")
    with pytest.raises(DataError, match="needs a column that names the image"):
        make("image_folder", path=str(tmp_path))


def test_captions_beside_images(tmp_path):
    for n in range(4):
        picture(tmp_path / f"{n}.png", color=(n, n, n))
        (tmp_path / f"{n}.txt").write_text(f"picture {n}\n")
    (tmp_path / "2.txt").unlink()
    source = make("image_folder", path=str(tmp_path))
    assert source[1]["caption"] == "picture 1"
    with pytest.raises(BadSample, match=r"2\.txt: is missing"):
        source[2]


def test_images_of_many_sizes_are_resized_and_of_one_are_kept(tmp_path):
    for n, side in enumerate((20, 50, 70, 90)):
        picture(tmp_path / "many" / f"{n}.png", (side, side + 9))
        picture(tmp_path / "one" / f"{n}.png", (13, 21))
    many, one = (make("image_folder", path=str(tmp_path / name)) for name in ("many", "one"))
    assert many[0]["image"].shape == (64, 64, 3)
    assert "resized to 64 x 64" in many.notes[0]
    assert one[0]["image"].shape == (21, 13, 3)
    assert not one.notes
    assert make("image_folder", path=str(tmp_path / "one"), size=16, channels=1)[0]["image"].shape == (16, 16, 1)


def test_transparency_palettes_sixteen_bits_and_turned_images(tmp_path):
    picture(tmp_path / "alpha" / "0.png", mode="RGBA", color=(0, 0, 0, 0))
    assert make("image_folder", path=str(tmp_path / "alpha"))[0]["image"].min() == 255
    picture(tmp_path / "palette" / "0.png", mode="P", color=0)
    assert make("image_folder", path=str(tmp_path / "palette"))[0]["image"].shape == (8, 8, 3)
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)).save(tmp_path / "deep" / "0.png")
    deep = make("image_folder", path=str(tmp_path / "deep"))[0]["image"]
    assert deep.shape == (8, 8, 1)
    assert (deep == 100).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "turned" / "0.jpg", (16, 8), exif=exif)
    assert make("image_folder", path=str(tmp_path / "turned"))[0]["image"].shape == (16, 8, 3)


def test_bad_images_are_bad_samples(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for n in range(4):
        Image.fromarray(noise).save(tmp_path / f"{n}.png")
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.png").write_bytes(b"not an image")
    (tmp_path / "3.png").write_bytes(b"")
    source = make("image_folder", path=str(tmp_path))
    for index, why in [(1, "damaged"), (2, "is not an image"), (3, "is empty")]:
        with pytest.raises(BadSample, match=why) as caught:
            source[index]
        assert caught.value.where == str(tmp_path / f"{index}.png")
    assert np.array_equal(source[0]["image"], noise)
    assert not {1, 2, 3} & set(source.split()[1])


def test_images_of_too_many_pixels_are_not_decoded(tmp_path):
    picture(tmp_path / "0.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "1.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "2.png")
    source = make("image_folder", path=str(tmp_path), size=8)
    start = time.perf_counter()
    for index in (1, 2):
        with pytest.raises(BadSample, match="pixels"):
            source[index]
    assert time.perf_counter() - start < 0.5


def test_folder_of_other_things_has_no_images(tmp_path):
    (tmp_path / "a.svg").write_text("<svg/>")
    with pytest.raises(DataError, match="holds no images"):
        make("image_folder", path=str(tmp_path))
    (tmp_path / "a.png").write_text("<svg/>")
    with pytest.raises(DataError, match="none of the first 1 images can be read"):
        make("image_folder", path=str(tmp_path))


# Arrays


@pytest.mark.parametrize(
    ("array", "shape", "dtype"),
    [
        (np.zeros((9, 5, 6), np.uint8), (5, 6, 1), np.uint8),
        (np.zeros((9, 5, 6, 3), np.uint8), (5, 6, 3), np.uint8),
        (np.zeros((9, 3, 5, 6), np.float64), (5, 6, 3), np.float32),
        (np.ones((9, 5, 6), bool), (5, 6, 1), np.uint8),
        (np.full((9, 5, 6), 200, np.int64), (5, 6, 1), np.uint8),
    ],
)
def test_arrays_of_images(tmp_path, array, shape, dtype):
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(
        tmp_path / "a.npz", pictures=array, y=np.arange(9) % 2, z=np.arange(9) / 2, names=np.array(["a", "b"])
    )
    image = make("arrays", path=str(tmp_path / "a.npy"))[2]["data"]
    assert image.shape == shape
    assert image.dtype == dtype
    source = make("arrays", path=str(tmp_path / "a.npz"))
    assert source.fields == {"pictures": "image", "y": "label", "z": "number"}
    assert source[3]["y"] == "1"
    assert source[3]["z"] == 1.5
    assert source[3]["pictures"].max() == (255 if array.dtype == bool else array.max())
    assert "names [2]" in source.notes[0]
    assert make("arrays", path=str(tmp_path / "a.npz"), fields={"pictures": "image", "y": "number"})[3]["y"] == 1.0


def test_arrays_that_are_not_read_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", cloud=np.zeros((9, 4)), label=np.arange(9))
    with pytest.raises(DataError, match=r"cloud \[9, 4\] float64.*read are images"):
        make("arrays", path=str(tmp_path / "a.npz"))
    np.savez(tmp_path / "a.npz", image=np.full((9, 4, 4), 3.5))
    with pytest.raises(DataError, match="images of floats are in 0…1"):
        make("arrays", path=str(tmp_path / "a.npz"))
    with pytest.raises(DataError, match="did you mean 'image'"):
        make("arrays", path=str(tmp_path / "a.npz"), fields={"imag": "image"})
    images = np.zeros((200, 4, 4))
    images[150, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", images)
    with pytest.raises(BadSample, match="nan"):
        make("arrays", path=str(tmp_path / "a.npy"))[150]


def test_pickled_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((9, 4, 4)), names=np.array([{"a": 1}] * 9, dtype=object))
    with pytest.raises(DataError, match="'names' holds pickled Python objects"):
        make("arrays", path=str(tmp_path / "a.npz"))
    assert make("arrays", path=str(tmp_path / "a.npz"), fields={"image": "image"})[0]["image"].shape == (4, 4, 1)
    (tmp_path / "b.npy").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DataError, match="not a whole"):
        make("arrays", path=str(tmp_path / "b.npy"))


def test_array_bombs_are_refused_before_they_are_unpacked(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 16, 16)})
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("image.npy", "w") as file,
    ):
        file.write(header.getvalue())
        for _ in range(128):
            file.write(bytes(1 << 20))
    (tmp_path / "a.npy").write_bytes(header.getvalue() + bytes(100))
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(DataError, match="declares arrays of 268,435,456 bytes"):
        make("arrays", path=str(tmp_path / "a.npz"))
    with pytest.raises(DataError, match="not a whole"):
        make("arrays", path=str(tmp_path / "a.npy"))
    with pytest.raises(DataError, match="1,000 are allowed"):
        make("arrays", path=str(tmp_path / "a.npy"), largest_bytes=1000)
    assert time.perf_counter() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
