"""Coadds to look at: in colour, band by band, with exposure counts and depth.

Belongs here: pictures and maps made of a tract's patches. Doesn't: single visits (`validation.figures.difference`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from astropy.visualization import make_lupton_rgb
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from validation.bands import bands_in
from validation.figures.inputs import InputMissing, Mosaic, ReleaseTract, SkyMapCut
from validation.figures.recipe import Recipe
from validation.figures.style import INK, SEQUENTIAL, canvas, colour_bar, picture_panel, styled
from validation.residuals import robust_width

_BLUE_GREEN_RED = "gri"
_GAINS = (0.8, 1.0, 1.35)
_SATURATION = 1.5
CLOSE_UP_HALF_PIXELS = 175
_NICE_BARS_ARCSEC = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 3600)


def colour_picture(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Make a colour picture of three images, bright and faint at once.

    Parameters
    ----------
    red, green, blue
        Images (rows, columns) in nJy; NaN where nothing is known.

    Returns
    -------
    numpy.ndarray
        (rows, columns, 3), uint8: Lupton's asinh stretch (PASP 116, 133), black below the sky's noise. Where a colour
        is unknown, as in saturated cores, it is as bright as the others.
    """
    # Stars have more flux in i than in g: gains make their common colour white.
    planes = np.stack(
        [gain * (plane - np.nanmedian(plane)) for gain, plane in zip(_GAINS, (red, green, blue), strict=True)]
    )
    noise = robust_width(planes[1])
    planes = np.where(np.isfinite(planes), planes, np.nanmean(planes, axis=0))
    picture = make_lupton_rgb(*np.nan_to_num(planes), minimum=0.5 * noise, stretch=10 * noise, Q=8).astype(float)
    grey = picture.mean(axis=2, keepdims=True)
    return np.clip(grey + _SATURATION * (picture - grey), 0, 255).astype(np.uint8)


@styled
def colour_coadd(bands: Mapping[str, Mosaic], *, scope: str = "") -> Figure:
    """Draw g, r, i as one picture in colour, by Lupton's asinh stretch.

    Parameters
    ----------
    bands
        Mosaics of g, r and i, of one shape, nJy.
    scope
        Which tract.
    """
    picture = colour_picture(*(bands[band].pixels for band in reversed(_BLUE_GREEN_RED)))
    figure, ((axes,),) = canvas(
        f"Deep coadd, gri{scope}",
        width=6.4,
        height=0.6 + 6.3 * _tallness(bands.values()),
        subtitle=_extent(bands[_BLUE_GREEN_RED[1]]),
    )
    axes.imshow(picture, origin="lower", interpolation="nearest")
    picture_panel(axes)
    _scale_bar(axes, bands[_BLUE_GREEN_RED[1]], "white")
    return figure


@styled
def close_up(red: np.ndarray, green: np.ndarray, blue: np.ndarray, arcsec_per_pixel: float | None) -> Figure:
    """Draw a small part of the coadd in colour, pixel by pixel.

    Parameters
    ----------
    red, green, blue
        The same part (rows, columns) in i, r and g, nJy.
    arcsec_per_pixel
        None if unknown.
    """
    mosaic = Mosaic(green, arcsec_per_pixel, 1, 1)
    scale = f", {arcsec_per_pixel:.2g} arcsec" if arcsec_per_pixel else ""
    side = f"{green.shape[1]} × {green.shape[0]} pixels{scale}"
    figure, ((axes,),) = canvas("Deep coadd, gri, close up", width=6.4, height=6.9, subtitle=side)
    axes.imshow(colour_picture(red, green, blue), origin="lower", interpolation="nearest")
    picture_panel(axes)
    _scale_bar(axes, mosaic, "white")
    return figure


@styled
def band_coadds(bands: Mapping[str, Mosaic], *, scope: str = "") -> Figure:
    """Draw each band's coadd in grey, by an asinh stretch of its own noise.

    Parameters
    ----------
    bands
        Mosaics by band, nJy.
    scope
        Which tract.
    """
    figure, panels, names = _panels(f"Deep coadd{scope}", bands, _tallness(bands.values()))
    for axes, band in zip(panels, names, strict=True):
        mosaic = bands[band]
        noise = robust_width(mosaic.pixels)
        stretched = np.arcsinh((mosaic.pixels - np.nanmedian(mosaic.pixels)) / (3 * noise))
        axes.imshow(stretched, origin="lower", cmap="gray_r", vmin=-0.5, vmax=4.0, interpolation="nearest")
        axes.set_title(f"{band}   σ = {noise:.3g} nJy a binned pixel", fontsize=9.5)
        picture_panel(axes)
        _scale_bar(axes, mosaic, INK)
    return figure


@styled
def exposure_counts(bands: Mapping[str, Mosaic], *, scope: str = "") -> Figure:
    """Map how many visits went into each place.

    Parameters
    ----------
    bands
        Mosaics of exposure counts by band.
    scope
        Which tract.
    """
    figure, panels, names = _panels(f"Exposures in the deep coadd{scope}", bands, _tallness(bands.values()))
    most = max(float(np.nanmax(mosaic.pixels)) for mosaic in bands.values())
    for axes, band in zip(panels, names, strict=True):
        counts = bands[band].pixels
        shown = axes.imshow(counts, origin="lower", cmap=SEQUENTIAL, vmin=0, vmax=most, interpolation="nearest")
        covered = 100 * float((counts[np.isfinite(counts)] > 0).mean())
        axes.set_title(f"{band}   median {np.nanmedian(counts):.1f}, {covered:.0f} % covered", fontsize=9.5)
        picture_panel(axes)
        _scale_bar(axes, bands[band], "white")
    bar = colour_bar(figure, shown, panels, "exposures")
    bar.locator = MaxNLocator(integer=True)
    bar.update_ticks()
    return figure


@styled
def depth_maps(bands: Mapping[str, SkyMapCut], *, scope: str = "") -> Figure:
    """Map the 5σ depth over the sky.

    Parameters
    ----------
    bands
        Maps of the depth (AB mag) by band.
    scope
        Which tract.
    """
    figure, panels, names = _panels(f"Depth{scope}", bands, 0.95)
    medians = {band: float(np.nanmedian(cut.pixels)) for band, cut in bands.items()}
    relative = {band: cut.pixels - medians[band] for band, cut in bands.items()}
    low, high = np.nanpercentile(np.concatenate([depth.ravel() for depth in relative.values()]), (2, 98))
    for axes, band in zip(panels, names, strict=True):
        cut = bands[band]
        edges = (cut.ra[0], cut.ra[-1], cut.dec[0], cut.dec[-1])
        shown = axes.imshow(
            relative[band], origin="lower", extent=edges, cmap=SEQUENTIAL, vmin=low, vmax=high, interpolation="nearest"
        )
        axes.grid(False)
        axes.set(xlabel="right ascension [deg]", ylabel="declination [deg]")
        axes.invert_xaxis()
        axes.set_aspect(1 / np.cos(np.radians(np.mean(cut.dec))))
        axes.set_title(f"{band}   median {medians[band]:.2f} mag", fontsize=9.5)
        axes.locator_params(nbins=4)
    colour_bar(figure, shown, panels, "5σ depth − band's median [mag]")
    return figure


def _panels(title: str, bands: Mapping[str, object], tallness: float) -> tuple[Figure, list[Axes], tuple[str, ...]]:
    """Make a panel a band, at most three in a row; what is left over is taken away."""
    names = bands_in(bands)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, grid = canvas(title, rows, columns, width=3.4 * columns + 0.8, height=(3.3 * tallness + 0.25) * rows + 0.35)
    panels = list(grid.flat)
    for axes in panels[len(names) :]:
        axes.remove()
    return figure, panels[: len(names)], names


def _tallness(mosaics: Iterable[Mosaic]) -> float:
    """Give the height of the tallest picture in units of its width, within reason."""
    return min(2.0, max(0.3, *(mosaic.pixels.shape[0] / mosaic.pixels.shape[1] for mosaic in mosaics)))


def _extent(mosaic: Mosaic) -> str:
    patches = f"{mosaic.patches} patch{'' if mosaic.patches == 1 else 'es'}"
    if mosaic.patches < mosaic.of_patches:
        patches = f"the innermost {mosaic.patches} of {mosaic.of_patches} patches"
    scale = f", {mosaic.arcsec_per_pixel:.2g} arcsec a pixel" if mosaic.arcsec_per_pixel else ""
    return patches + scale


def _scale_bar(axes: Axes, mosaic: Mosaic, colour: str) -> None:
    """Draw a bar of a round length, about a sixth of the width."""
    if not mosaic.arcsec_per_pixel:
        return
    height, width = mosaic.pixels.shape
    wanted = width * mosaic.arcsec_per_pixel / 6
    length = min(_NICE_BARS_ARCSEC, key=lambda nice: abs(np.log(nice / wanted)))
    pixels = length / mosaic.arcsec_per_pixel
    x, y = 0.04 * width, 0.04 * height
    halo = [withStroke(linewidth=3, foreground="black" if colour == "white" else "white")]
    axes.plot([x, x + pixels], [y, y], color=colour, linewidth=2, solid_capstyle="butt", path_effects=halo)
    text = f"{length}″" if length < 60 else f"{length // 60}′"
    axes.text(
        x + pixels / 2,
        y + 0.015 * height,
        text,
        color=colour,
        ha="center",
        va="bottom",
        fontsize=9,
        path_effects=halo,
    )


def _mosaics(tract: ReleaseTract, product: str) -> dict[str, Mosaic]:
    return {band: tract.mosaic(product, band) for band in tract.bands(product)}


def _scope(tract: ReleaseTract) -> str:
    return f", tract {tract.tract}"


def _need_colours(tract: ReleaseTract) -> None:
    lacking = sorted(set(_BLUE_GREEN_RED) - set(tract.bands("deep_coadd")))
    if lacking:
        raise InputMissing(f"there is no deep_coadd in {', '.join(lacking)}")


def _draw_close_up(tract: ReleaseTract) -> Figure:
    _need_colours(tract)
    cuts = [tract.middle("deep_coadd", band, CLOSE_UP_HALF_PIXELS) for band in reversed(_BLUE_GREEN_RED)]
    red, green, blue = (cut.pixels for cut in cuts)
    return close_up(red, green, blue, cuts[1].arcsec_per_pixel)


def _draw_colour(tract: ReleaseTract) -> Figure:
    _need_colours(tract)
    mosaics = {band: tract.mosaic("deep_coadd", band, 720) for band in _BLUE_GREEN_RED}
    if len({mosaic.pixels.shape for mosaic in mosaics.values()}) > 1:
        raise InputMissing("the bands of deep_coadd cover different patches")
    return colour_coadd(mosaics, scope=_scope(tract))


def _draw_depth(tract: ReleaseTract) -> Figure:
    name = "deep_coadd_depth_map"
    maps = {str(ref.dataId["band"]): tract.sky_map(ref) for ref in tract.refs(name)}
    maps = {band: cut for band, cut in maps.items() if np.isfinite(cut.pixels).any()}
    if not maps:
        raise InputMissing(f"{name} knows nothing of tract {tract.tract}")
    return depth_maps(maps, scope=_scope(tract))


RECIPES = (
    Recipe(
        "deep_coadd_colour",
        "Deep coadd in colour",
        "Look for satellites that survived clipping, haloes cut by the background, seams between patches.",
        "deep_coadd",
        _draw_colour,
    ),
    Recipe(
        "deep_coadd_close_up",
        "Deep coadd, close up",
        "The middle of the innermost patch, pixel by pixel: shapes of stars, residues of cosmic rays, blends.",
        "deep_coadd",
        _draw_close_up,
    ),
    Recipe(
        "deep_coadd_bands",
        "Deep coadd by band",
        "The same, band by band, stretched by each band's own noise.",
        "deep_coadd",
        lambda tract: band_coadds(_mosaics(tract, "deep_coadd"), scope=_scope(tract)),
    ),
    Recipe(
        "exposure_counts",
        "Exposures in the deep coadd",
        "Holes and edges: where few visits went in, everything else is worse.",
        "deep_coadd_n_image",
        lambda tract: exposure_counts(_mosaics(tract, "deep_coadd_n_image"), scope=_scope(tract)),
    ),
    Recipe(
        "depth",
        "Depth over the sky",
        "How faint a point source can be found at five sigma.",
        "deep_coadd_depth_map",
        _draw_depth,
    ),
)
