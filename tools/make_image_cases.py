#!/usr/bin/env python3
"""Writes small JPEG and PNG files to a folder, each with what Pillow makes of it: NAME.jpg or NAME.png, and NAME.ppm,
the pixels of Image.open(f).convert("RGB"), as torchvision's loader calls it. tests/data/images was written by

    tools/make_image_cases.py tests/data/images

with Pillow 9.4 and libjpeg-turbo 2.1.5. Needs Pillow."""

import io
import pathlib
import random
import struct
import sys
import warnings
import zlib

from PIL import Image

HEIGHT, WIDTH = 20, 27  # neither is a multiple of a block's 8 or 16


def values(channels, bits=8):
    """Rows of colours that change slowly, with some noise; every one of the bits is used."""
    noise = random.Random(channels)
    return [
        [
            min(65535, 256 * (5 + 7 * h * (c + 1) % 150 + 3 * w) + noise.randrange(9000)) >> (16 - bits)
            for w in range(WIDTH)
            for c in range(channels)
        ]
        for h in range(HEIGHT)
    ]


def jpeg(mode, **options):
    image = Image.new(mode, (WIDTH, HEIGHT))
    channels = len(image.getbands())
    flat = [v for row in values(channels) for v in row]
    image.putdata(flat if channels == 1 else list(zip(*[iter(flat)] * channels)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90, **options})
    return buffer.getvalue()


def segments(file):
    """The marker segments between the start and the image's data, and that data from its marker on."""
    found, at = [], 2
    while file[at + 1] != 0xDA:
        end = at + 2 + struct.unpack(">H", file[at + 2 : at + 4])[0]
        found.append(file[at:end])
        at = end
    return found, file[at:]


def with_adobe(file, transform):
    """Without the markers that tell of colours, and with Adobe's of this transform unless it is None."""
    found, data = segments(file)
    kept = [s for s in found if s[1] not in (0xE0, 0xEE)]
    if transform is not None:
        kept.insert(0, b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]))
    return b"\xff\xd8" + b"".join(kept) + data


def with_ids(file, ids):
    """Three components of these identifiers, and no marker that tells of colours."""
    found, data = segments(with_adobe(file, None))
    data = bytearray(data)
    for i, name in enumerate(ids):
        data[5 + 2 * i] = name
        for k, segment in enumerate(found):
            if segment[1] == 0xC0:
                found[k] = segment[: 10 + 3 * i] + bytes([name]) + segment[11 + 3 * i :]
    return b"\xff\xd8" + b"".join(found) + bytes(data)


def changed(file, offset, new):
    return file[:offset] + new + file[offset + len(new) :]


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(color_type, bits, rows, before=(), after=()):
    """`before` and `after` are chunks around the image's data."""
    packed = b""
    for row in rows:
        packed += b"\0"
        if bits == 16:
            packed += struct.pack(f">{len(row)}H", *row)
        else:
            text = "".join(format(v, f"0{bits}b") for v in row)
            packed += bytes(int(text[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(text), 8))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, color_type, 0, 0, 0)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *before, chunk(b"IDAT", zlib.compress(packed)), *after]
    ) + chunk(b"IEND", b"")


def palette(entries):
    return chunk(b"PLTE", bytes((37 * i + 11 * c) % 256 for i in range(entries) for c in range(3)))


def jpegs():
    colour = jpeg("RGB", subsampling=0)
    cmyk = jpeg("CMYK")
    start_of_scan = colour.index(b"\xff\xda")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    return {
        "grey": jpeg("L"),
        "colour_444": colour,
        "colour_422": jpeg("RGB", subsampling=1),
        "colour_420": jpeg("RGB", subsampling=2),
        "progressive_420": jpeg("RGB", subsampling=2, progressive=True),
        "progressive_cmyk": jpeg("CMYK", progressive=True),
        "cmyk": cmyk,
        "cmyk_without_marker": with_adobe(cmyk, None),
        "ycck": with_adobe(cmyk, 2),
        "ycck_420": with_adobe(jpeg("CMYK", subsampling=2), 2),
        "adobe_rgb": with_adobe(colour, 0),
        "adobe_ycc": with_adobe(colour, 1),
        "ids_rgb": with_ids(colour, b"RGB"),
        "ids_others": with_ids(colour, b"\x0a\x14\x1e"),
        "exif_orientation": jpeg("RGB", exif=exif),
        "bytes_after_the_end": colour + b"more",
        # What libjpeg warns of, though no pixel is in doubt.
        "warns_adobe_transform_3_channels": with_adobe(colour, 7),
        "warns_adobe_transform_4_channels": with_adobe(cmyk, 7),
        "warns_jfif_version": changed(colour, colour.index(b"JFIF\0") + 5, b"\2\0"),
        "warns_bytes_before_a_marker": colour[:start_of_scan] + b"junk" + colour[start_of_scan:],
        "warns_bytes_before_the_end": colour[:-2] + b"junk" + colour[-2:],
        "warns_scan_parameters": changed(colour, start_of_scan + 11, b"\0\0\0"),
    }


def pngs():
    grey, rgb = values(1), values(3)
    indices = [[v % 16 for v in row] for row in grey]
    profile = chunk(b"iCCP", b"broken\0\0" + b"nothing that zlib knows")
    gamma = chunk(b"gAMA", struct.pack(">I", 100000))
    return {
        "grey_1_bit": png(0, 1, values(1, 1)),
        "grey_2_bits": png(0, 2, values(1, 2)),
        "grey_4_bits": png(0, 4, values(1, 4)),
        "grey_transparent": png(0, 8, grey, [chunk(b"tRNS", b"\0\x40")]),
        "grey_alpha": png(4, 8, values(2)),
        "grey_alpha_16_bits": png(4, 16, values(2, 16)),
        "rgb_transparent": png(2, 8, rgb, [chunk(b"tRNS", b"\0\x40\0\x50\0\x60")]),
        "rgb_16_bits": png(2, 16, values(3, 16)),
        "rgba": png(6, 8, values(4)),
        "rgba_16_bits": png(6, 16, values(4, 16)),
        "palette_1_bit": png(3, 1, values(1, 1), [palette(2)]),
        "palette_4_bits": png(3, 4, indices, [palette(16)]),
        "palette_transparent_entry": png(3, 8, indices, [palette(16), chunk(b"tRNS", b"\xff\xff\0")]),
        "palette_alpha": png(3, 8, indices, [palette(16), chunk(b"tRNS", bytes(range(0, 160, 10)))]),
        "palette_too_much_alpha": png(3, 8, indices, [palette(16), chunk(b"tRNS", bytes(20))]),
        "broken_profile_and_gamma": png(2, 8, rgb, [gamma, profile]),
        "animated": png(2, 8, rgb, [chunk(b"acTL", struct.pack(">II", 1, 0))],
                        [chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, WIDTH, HEIGHT, 0, 0, 1, 1, 0, 0)),
                         chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(bytes(HEIGHT * (1 + 3 * WIDTH))))]),
    }


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: make_image_cases.py FOLDER")
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # of transparency that is dropped
    for extension, cases in (("jpg", jpegs()), ("png", pngs())):
        for name, file in cases.items():
            (folder / f"{name}.{extension}").write_bytes(file)
            Image.open(io.BytesIO(file)).convert("RGB").save(folder / f"{name}.ppm")


if __name__ == "__main__":
    main()
