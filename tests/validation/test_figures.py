import numpy as np
import pytest
from astropy.table import Table
from matplotlib import rcParams
from PIL import Image

from resources.errors import Rejected
from validation.bands import bands_in
from validation.figures import coadds, difference, stellar_locus, truth
from validation.figures.index import read_index
from validation.figures.inputs import InputMissing, Mosaic, ReleaseTract, SkyMapCut, place_of
from validation.figures.registry import draw, figure_names
from validation.figures.style import BAND_COLOURS, BAND_MARKERS, PICTURE_BYTES, THUMBNAIL_BYTES, canvas, save
from validation.metrics import Measurement


@pytest.fixture(scope="module")
def drawn(release_repository, tmp_path_factory):
    return draw(release_repository, "demo", 0, tmp_path_factory.mktemp("figures"), skymap="sim_v1", instrument="SimCam")


@pytest.fixture
def tract(release_repository):
    return ReleaseTract(release_repository, "demo", "sim_v1", 0, "SimCam")


def test_every_figure_is_drawn_or_skipped_for_a_reason(drawn):
    assert {f.name for f in drawn.drawn} | {f.name for f in drawn.skipped} == set(figure_names())
    assert drawn.skipped == ()


def test_pictures_and_thumbnails_keep_within_their_sizes(drawn):
    for figure in drawn.drawn:
        picture, thumbnail = drawn.folder / figure.file, drawn.folder / figure.thumbnail
        assert 0 < picture.stat().st_size <= PICTURE_BYTES
        assert 0 < thumbnail.stat().st_size <= THUMBNAIL_BYTES
        with Image.open(picture) as image:
            assert image.width >= 500
        with Image.open(thumbnail) as image:
            assert image.width <= 320


def test_the_index_tells_what_the_folder_holds(drawn):
    assert read_index(drawn.folder) == drawn
    assert {figure.name for figure in drawn.of_product("deep_coadd")} == {
        "deep_coadd_colour",
        "deep_coadd_close_up",
        "deep_coadd_bands",
    }


def test_a_folder_without_an_index_is_rejected(tmp_path):
    with pytest.raises(Rejected, match="draw the figures first"):
        read_index(tmp_path)
    (tmp_path / "index.json").write_text('{"drawn": [{}]}')
    with pytest.raises(Rejected, match="no index of figures"):
        read_index(tmp_path)


def test_only_the_named_figures_are_drawn(release_repository, tmp_path):
    index = draw(release_repository, "demo", 0, tmp_path, only=["stellar_locus"], skymap="sim_v1")
    assert [figure.name for figure in index.drawn] == ["stellar_locus"]
    with pytest.raises(Rejected, match="no such figure: locus"):
        draw(release_repository, "demo", 0, tmp_path, only=["locus"])


def test_another_tract_has_nothing_to_draw_and_says_so(release_repository, tmp_path):
    index = draw(release_repository, "demo", 7, tmp_path)
    assert index.drawn == ()
    assert {f.name: f.reason for f in index.skipped}["stellar_locus"] == "there is no object in tract 7"


def test_drawing_leaves_the_process_settings_alone(release_repository, tmp_path):
    before = dict(rcParams)
    draw(release_repository, "demo", 0, tmp_path, only=["visit_timeline"])
    assert dict(rcParams) == before


def test_bands_are_told_apart_by_marker_as_well_as_by_colour():
    assert len(set(BAND_COLOURS.values())) == len(set(BAND_MARKERS.values())) == 6


def test_bands_are_shown_by_wavelength():
    assert bands_in(["i", "w", "g", "i", "u", ""]) == ("", "u", "g", "i", "w")


def test_a_picture_that_does_not_compress_still_fits(tmp_path):
    figure, ((axes,),) = canvas("Noise", width=9, height=9)
    axes.imshow(np.random.default_rng(0).random((900, 900, 3)))
    picture = save(figure, tmp_path, "noise")
    assert picture.path.stat().st_size <= PICTURE_BYTES
    assert picture.thumbnail.stat().st_size <= THUMBNAIL_BYTES


def test_patches_lie_where_their_pixels_belong(tract):
    mosaic = tract.mosaic("deep_coadd_n_image", "r")
    assert mosaic.pixels.shape == (48, 96)
    assert mosaic.arcsec_per_pixel == pytest.approx(0.2, rel=1e-3)
    assert mosaic.pixels[0, 0] == 0
    assert mosaic.pixels[0, -1] == 4
    # The border of four pixels on each side of the seam is the mean of both patches.
    assert mosaic.pixels[10, 48] == pytest.approx((4 + 0) / 2, abs=0.5)


def test_pixels_without_data_are_unknown_unless_somebody_interpolated_them(tract):
    known = np.isfinite(tract.mosaic("deep_coadd", "r").pixels)
    assert not known[:, :3].any()
    assert known[:, 3:].all()


def test_a_large_mosaic_is_binned_and_a_large_tract_shows_its_innermost_patches(release_repository):
    tract = ReleaseTract(release_repository, "demo", "sim_v1", 0, "SimCam", most_patches=1)
    mosaic = tract.mosaic("deep_coadd", "r", size=26)
    assert mosaic.pixels.shape == (24, 26)
    assert mosaic.arcsec_per_pixel == pytest.approx(0.4, rel=1e-3)
    assert (mosaic.patches, mosaic.of_patches) == (1, 2)


def test_a_cutout_beyond_the_edge_is_filled_with_nothing(tract):
    (ref,) = tract.refs("difference_image")
    cut = tract.cutout(ref, 2, 30, 5)
    assert cut.shape == (11, 11)
    assert np.isnan(cut[:, :3]).all()
    assert np.isfinite(cut[:, 3:]).all()
    assert np.isnan(tract.cutout(ref, -100, -100, 5)).all()


def test_a_map_of_the_whole_sky_is_sampled_over_the_tract_alone(tract):
    (ref,) = tract.refs("deep_coadd_depth_map", band="r")
    cut = tract.sky_map(ref, 40)
    known = np.isfinite(cut.pixels).mean(axis=0)
    assert known[:28].min() > 0.9
    assert known[36:].max() == 0
    assert np.nanmin(cut.pixels) == pytest.approx(25.0, abs=0.01)
    assert cut.ra.mean() == pytest.approx(53.1, abs=1e-4)


def test_a_product_that_was_never_made_is_named(tract):
    with pytest.raises(InputMissing, match="grey_image was never made"):
        tract.refs("grey_image")


def test_a_table_that_lacks_a_column_names_it(tract):
    with pytest.raises(InputMissing, match="object has no column u_psfFlux"):
        tract.table("object", ["u_psfFlux", "detect_isPrimary"])


def test_visits_that_overlap_the_tract_are_read_one_after_another(made_up_release, tract):
    assert set(tract.table("visit_summary", ["visit"])["visit"]) == set(made_up_release.visits)
    sample = ReleaseTract(made_up_release.butler, "demo", "sim_v1", 0, "SimCam", most_visits=2)
    assert len(set(sample.table("visit_summary", ["visit"])["visit"])) == 2


@pytest.mark.parametrize(
    ("name", "place"), [("R22_S00", (6, 6)), ("R01_S12", (5, 1)), ("S21", (1, 2)), ("R00_SG0", None), ("W1", None)]
)
def test_raft_and_slot_tell_where_a_detector_is(name, place):
    assert place_of(name) == place


def test_stars_of_the_locus_are_unresolved_primary_and_bright():
    objects = Table({f"{b}_psfFlux": np.full(4, 1000.0) for b in "gri"})
    for band in "gri":
        objects[f"{band}_psfFluxErr"] = [10.0, 10.0, 10.0, 100.0]
    objects["refExtendedness"] = [0.0, 0.5, 0.0, 0.0]
    objects["detect_isPrimary"] = [True, True, False, True]
    stars = stellar_locus.stars_of(objects)
    assert len(stars) == 1
    assert stars["g_r"][0] == 0


def test_negative_fluxes_have_no_colour_and_raise_no_warning(recwarn):
    objects = Table({f"{b}_psfFlux": [-5.0] for b in "gri"} | {f"{b}_psfFluxErr": [1.0] for b in "gri"})
    objects["refExtendedness"], objects["detect_isPrimary"] = [0.0], [True]
    assert len(stellar_locus.stars_of(objects)) == 0
    assert not recwarn.list


def test_dia_sources_are_shown_from_bright_to_faint_without_flagged_ones():
    sources = Table({"snr": [5.0, 100.0, -50.0, 20.0, np.nan], "flag": [False, True, False, False, False]})
    assert list(difference.spread_over_significance(sources, 2)["snr"]) == [-50.0, 5.0]
    assert list(difference.spread_over_significance(sources, 9)["snr"]) == [-50.0, 20.0, 5.0]


def test_binned_metrics_are_found_among_the_others():
    metrics = [
        Measurement("completeness_22.5_23", "r", 92.0, "%", 40),
        Measurement("completeness_22_22.5", "r", 98.0, "%", 50),
        Measurement("completeness_23_23.5", "r", None),
        Measurement("diaCompleteness_12", "", 95.0, "%", 20),
        Measurement("PF1_stars", "r", 3.0, "%"),
        Measurement("completenessSn10", "r", 97.0, "%"),
    ]
    assert truth.binned(metrics) == (
        truth.BinnedValue("completeness", "r", 22.0, 22.5, 98.0, 50),
        truth.BinnedValue("completeness", "r", 22.5, 23.0, 92.0, 40),
        truth.BinnedValue("diaCompleteness", "", 12.0, None, 95.0, 20),
    )
    assert [b.centre for b in truth.binned(metrics)] == [22.25, 22.75, 12.0]


def test_completeness_limits_alone_are_drawn_and_nothing_is_missing_input():
    limits = [Measurement("m50", "r", 24.2, "mag"), Measurement("m90", "r", None, "mag")]
    assert [axes.get_title(loc="left") for axes in truth.truth_comparison((), limits).axes] == ["Stars with an object"]
    with pytest.raises(InputMissing, match="no truth metric"):
        truth.truth_comparison((), limits[1:])


def test_a_coadd_is_drawn_with_holes_and_in_any_number_of_bands():
    pixels = np.random.default_rng(2).normal(0, 1, (20, 30))
    pixels[:, :5] = np.nan
    mosaics = {band: Mosaic(pixels, None, 1, 1) for band in "ugrizy"}
    assert len(coadds.band_coadds(mosaics).axes) == 6
    assert len(coadds.band_coadds({"r": mosaics["r"]}).axes) == 1
    assert len(coadds.colour_coadd(mosaics).axes) == 1


def test_a_core_that_one_band_lacks_is_as_bright_as_the_others():
    planes = np.random.default_rng(3).normal(0, 1, (3, 30, 30))
    planes[:, 10:14, 10:14] = 500.0
    planes[0, 11, 11] = np.nan
    picture = coadds.colour_picture(*planes).astype(float)
    assert picture[11, 11].min() > 0.7 * picture[12, 12].mean() > 100
    assert picture[20:, 20:].mean() < 20


def test_depth_is_drawn_where_the_map_knows_it():
    pixels = np.full((8, 8), np.nan)
    pixels[2:6, 2:6] = 24.5
    cut = SkyMapCut(pixels, np.linspace(53, 53.1, 8), np.linspace(-28.1, -28, 8))
    panel = coadds.depth_maps({"r": cut}).axes[0]
    assert panel.get_title(loc="left") == "r   median 24.50 mag"
    assert panel.xaxis_inverted()
