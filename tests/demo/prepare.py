"""Unpack real data that PyPI packages ship: 1,797 handwritten digits as images, two photographs, a weather table."""

import csv
import gzip
import importlib.util
import shutil
import sys
from pathlib import Path


def package_folder(name: str) -> Path:
    """Where a package is, without importing it (its own dependencies are not installed)."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{name} is not installed")
    return Path(spec.origin).parent


def write_digits(folder: Path) -> None:
    """One greyscale image and one label a digit: 0000.pgm, 0000.cls."""
    folder.mkdir(parents=True, exist_ok=True)
    table = package_folder("sklearn") / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(table, "rt", encoding="ascii") as lines:
        for number, row in enumerate(csv.reader(lines)):
            values = [int(float(cell)) for cell in row]
            pixels = bytes(value * 255 // 16 for value in values[:64])
            (folder / f"{number:04d}.pgm").write_bytes(b"P5 8 8 255\n" + pixels)
            (folder / f"{number:04d}.cls").write_text(str(values[64]))


def write_photos(folder: Path) -> None:
    """The two photographs with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    images = package_folder("sklearn") / "datasets" / "images"
    for name, caption in (("china", "A temple in China"), ("flower", "A flower")):
        shutil.copy(images / f"{name}.jpg", folder / f"{name}.jpg")
        (folder / f"{name}.txt").write_text(caption)


def write_weather(path: Path) -> None:
    """Four years of weather in Seattle."""
    shutil.copy(package_folder("vega_datasets") / "_data" / "seattle-weather.csv", path)


def main() -> None:
    """Prepare everything below the folder named on the command line."""
    target = Path(sys.argv[1])
    write_digits(target / "digits")
    write_photos(target / "photos")
    write_weather(target / "weather.csv")
    print(f"{target}: 1,797 digits, 2 photographs, a table", file=sys.stderr)


if __name__ == "__main__":
    main()
