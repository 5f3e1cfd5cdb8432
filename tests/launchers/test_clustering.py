import networkx
from hypothesis import given
from hypothesis import strategies as st

from launchers.clustering import plan_clusters


def sizes(clusters) -> list[tuple[str, int]]:
    return [(cluster.label, len(cluster.quanta)) for cluster in clusters]


def detector_visits(visits: int, detectors: int = 9) -> list[tuple[int, int]]:
    return [(visit, detector) for visit in range(visits) for detector in range(detectors)]


def test_single_detectors_become_one_job_a_core():
    isr = [("isr", *each) for each in detector_visits(12)]
    calibrate = [("cal", *each) for each in detector_visits(12)]

    clusters = plan_clusters({"isr": isr, "calibrateImage": calibrate}, zip(isr, calibrate, strict=True), count=2)

    assert sizes(clusters) == [("isr-calibrateImage", 108), ("isr-calibrateImage", 108)]


def test_a_visit_s_detectors_stay_together_with_what_joins_them():
    sources = [("src", *each) for each in detector_visits(12)]
    visits = [("visit", visit) for visit in range(12)]
    edges = [(source, ("visit", source[1])) for source in sources]

    clusters = plan_clusters({"measure": sources, "consolidate": visits}, edges, count=2)

    assert sizes(clusters) == [("measure-consolidate", 60), ("measure-consolidate", 60)]


def test_patches_run_in_parallel_and_their_catalogue_after_them():
    warps = [("warp", visit, patch) for visit in range(12) for patch in range(4)]
    coadds = [("coadd", patch, band) for patch in range(4) for band in "gri"]
    objects = [("object", patch) for patch in range(4)]
    edges = [(warp, ("coadd", warp[2], "gri"[warp[1] % 3])) for warp in warps]
    edges += [(coadd, ("object", coadd[1])) for coadd in coadds]
    edges += [(each, ("tract",)) for each in objects]

    clusters = plan_clusters({"warp": warps, "coadd": coadds, "object": objects, "tract": [("tract",)]}, edges, count=2)

    assert sizes(clusters) == [("warp-object", 32), ("warp-object", 32), ("tract", 1)]


def test_bands_feed_the_cores_where_there_is_only_one_patch():
    warps = [("warp", visit) for visit in range(12)]
    coadds = [("coadd", band) for band in "gri"]
    edges = [(warp, ("coadd", "gri"[warp[1] % 3])) for warp in warps] + [(coadd, ("object",)) for coadd in coadds]

    clusters = plan_clusters({"warp": warps, "coadd": coadds, "object": [("object",)]}, edges, count=2)

    assert [label for label, _ in sizes(clusters)] == ["warp-coadd", "warp-coadd", "object"]


def test_a_single_quantum_is_a_single_job():
    assert sizes(plan_clusters({"fit": ["q"]}, [], count=8)) == [("fit", 1)]


def test_no_job_has_more_quanta_than_a_command_line_can_name():
    quanta = list(range(2500))

    assert [size for _, size in sizes(plan_clusters({"isr": quanta}, [], count=1, max_quanta=1000))] == [834, 833, 833]


@st.composite
def graphs(draw):
    tasks: dict[str, list[tuple[int, int]]] = {}
    edges = []
    for number in range(draw(st.integers(1, 4))):
        members = [(number, each) for each in range(draw(st.integers(0, 6)))]
        earlier = [quantum for quanta in tasks.values() for quantum in quanta]
        for member in members if earlier else ():
            edges += [(parent, member) for parent in draw(st.sets(st.sampled_from(earlier), max_size=3))]
        tasks[f"t{number}"] = members
    return tasks, edges


@given(graphs(), st.integers(1, 5), st.integers(1, 10))
def test_every_quantum_is_in_one_job_and_jobs_never_wait_in_a_circle(graph, count, max_quanta):
    tasks, edges = graph
    clusters = plan_clusters(tasks, edges, count=count, max_quanta=max_quanta)

    job_of = {quantum: number for number, cluster in enumerate(clusters) for quantum in cluster.quanta}
    assert sorted(q for cluster in clusters for q in cluster.quanta) == sorted(
        q for quanta in tasks.values() for q in quanta
    )
    jobs = networkx.DiGraph((job_of[a], job_of[b]) for a, b in edges if job_of[a] != job_of[b])
    assert networkx.is_directed_acyclic_graph(jobs)
    same_stage = [(a, b) for a, b in jobs.edges if clusters[a].label == clusters[b].label]
    assert not same_stage
