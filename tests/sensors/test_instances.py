"""A sensor's ticks share an instance, and never take another one's."""

import dagster as dg

from sensors.instances import remember_instance


def tick(reference) -> dg.SensorEvaluationContext:
    return dg.SensorEvaluationContext(
        instance_ref=reference, last_tick_completion_time=None, last_run_key=None, cursor=None, repository_name=None
    )


def test_ticks_share_the_instance_that_their_reference_names():
    with dg.instance_for_test() as first, dg.instance_for_test() as second:
        ticks = [tick(first.get_ref()), tick(first.get_ref()), tick(second.get_ref())]
        for each in ticks:
            remember_instance(each)

        assert ticks[0].instance is ticks[1].instance
        assert ticks[0].instance.root_directory == first.root_directory
        assert ticks[2].instance.root_directory == second.root_directory


def test_a_tick_that_was_given_its_instance_keeps_it():
    with dg.instance_for_test() as instance:
        context = dg.build_sensor_context(instance=instance)

        remember_instance(context)

        assert context.instance is instance
