"""What every `ScalingPolicy` must do: a kit to subclass."""

from __future__ import annotations

import math
import pickle
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shardfit.errors import InfeasibleRequestError
from shardfit.scaling import (
    ClusterResources,
    Keep,
    Node,
    Resize,
    ScalingPolicy,
    ScalingRequest,
    WorkerLayout,
)
from shardfit.testing.kit import Kit, check
from shardfit.testing.strategies import clusters, scaling_requests

_NODE = Node("big", "10.0.0.1", 8.0, 2.0, 2**34)


class ScalingKit(Kit, ABC):
    """What every scaling policy must do. Subclass it and make the policy.

    Example:
        ```python
        class TestMine(ScalingKit):
            def make_policy(self):
                return MyPolicy()
        ```
    """

    max_examples: ClassVar[int] = 40
    """Clusters and requests that each property is tried on."""

    max_nodes: ClassVar[int] = 40
    """Most nodes of a cluster that is drawn."""

    @abstractmethod
    def make_policy(self) -> ScalingPolicy:
        """Return a new policy; two of them must decide alike."""

    def test_no_node_is_used_beyond_what_it_has(self) -> None:
        """CPUs are counted whole; memory and GPUs too; no node is made up."""

        def compare(cluster: ClusterResources, request: ScalingRequest) -> None:
            check_fits(self._decide(cluster, request), cluster)

        self._for_all(compare)

    def test_what_was_asked_for_is_given_exactly(self) -> None:
        """A number of workers, of CPUs, or a device that the user names is no wish."""

        def compare(cluster: ClusterResources, request: ScalingRequest) -> None:
            layout = self._decide(cluster, request)
            check(request.workers in (-1, layout.workers), f"{layout.workers} workers for {request!r}")
            cpus = {slot.cpus for slot in layout.slots}
            check(request.cpus_per_worker == -1 or cpus == {request.cpus_per_worker}, f"{cpus!r} CPUs for {request!r}")
            check(request.use_gpu in (None, layout.uses_gpu), f"uses_gpu={layout.uses_gpu} for {request!r}")
            gpus = {slot.gpus for slot in layout.slots}
            check(len(gpus) == 1, f"workers with {sorted(gpus)!r} GPUs in one run")

        self._for_all(compare)

    def test_one_node_more_is_never_a_loss(self) -> None:
        """What fits keeps fitting; whoever asks for all gets no fewer workers and CPUs, on the same device."""

        @settings(deadline=None, max_examples=self.max_examples)
        @given(clusters(1, self.max_nodes, ("ray",)), clusters(1, 1, ("ray",)), scaling_requests(), st.data())
        def compare(
            cluster: ClusterResources, single: ClusterResources, request: ScalingRequest, data: st.DataObject
        ) -> None:
            before = self._decide(cluster, request)
            nodes, extra = list(cluster.nodes), single.nodes[0]
            place = data.draw(st.integers(0, len(nodes)))
            nodes.insert(place, Node("extra", "10.9.9.9", extra.cpus, extra.gpus, extra.memory))
            after = self.make_policy().decide(ClusterResources(tuple(nodes), "ray"), request)
            assume(before.uses_gpu == after.uses_gpu)
            found, had = _totals(after), _totals(before)
            check(found[0] >= had[0], f"{had} workers and CPUs become {found} with one node more")
            # A number of workers that is given may be spread wider, over smaller nodes.
            check(request.workers != -1 or found[1] >= had[1], f"{had} workers and CPUs become {found}")

        compare()

    def test_reasons_are_given(self) -> None:
        """People read why: sentences, none of them empty."""

        def compare(cluster: ClusterResources, request: ScalingRequest) -> None:
            reasons = self._decide(cluster, request).reasons
            check(reasons and all(reason.strip().endswith(".") for reason in reasons), f"the reasons are {reasons!r}")

        self._for_all(compare)

    def test_equal_arguments_give_equal_layouts(self) -> None:
        """A pure function: another policy, with copies of the arguments, decides alike."""

        def compare(cluster: ClusterResources, request: ScalingRequest) -> None:
            there = pickle.loads(pickle.dumps((cluster, request)))  # noqa: S301 - made here
            check(self._decide(cluster, request) == self.make_policy().decide(*there), "the same arguments, twice")

        self._for_all(compare)

    def test_what_never_fits_is_refused_with_numbers(self) -> None:
        """Said at once: what is required, what is there, what to change."""
        requests = (
            ScalingRequest(workers=999),
            ScalingRequest(workers=3, cpus_per_worker=777),
            ScalingRequest(workers=3, use_gpu=True),
        )
        for request in requests:
            required = max(request.workers, request.cpus_per_worker)
            try:
                layout = self.make_policy().decide(ClusterResources((_NODE,), "ray"), request)
            except InfeasibleRequestError as error:
                check(str(required) in _numbers(error), f"{error} does not say {required}")
                check(_numbers(error) & {"8", "2"}, f"{error} does not say what there is")
                check(error.advice.strip(), f"{error} does not say what to change")
            else:
                check(False, f"{request!r} on {_NODE!r} gives {layout!r}")

    def test_an_empty_cluster_is_refused(self) -> None:
        """No node, no worker."""
        for request in (ScalingRequest(), ScalingRequest(workers=2)):
            try:
                layout = self.make_policy().decide(ClusterResources((), "ray"), request)
            except InfeasibleRequestError:
                continue
            check(False, f"{request!r} on a cluster without nodes gives {layout!r}")

    def test_without_a_cluster_one_worker_runs_in_this_process(self) -> None:
        """A laptop needs no Ray for one worker, and the inline engine has no second."""
        machine = ClusterResources((Node("here", "127.0.0.1", 4.0, 0.0, 2**33),), "inline")
        one = self.make_policy().decide(machine, ScalingRequest(workers=1))
        check((one.engine, one.workers) == ("inline", 1), f"one worker gives {one!r}")
        two = self.make_policy().decide(machine, ScalingRequest(workers=2))
        check((two.engine, two.workers) == ("ray", 2), f"two workers give {two!r}")

    def test_after_a_loss_only_what_is_left_is_used(self) -> None:
        """Whatever is gone, the answer is to wait, to go on with what is there, or to give up; same device."""

        @settings(deadline=None, max_examples=self.max_examples)
        @given(clusters(1, self.max_nodes, ("ray",)), scaling_requests(), st.data())
        def compare(cluster: ClusterResources, request: ScalingRequest, data: st.DataObject) -> None:
            lost = self._decide(cluster, request)
            gone = data.draw(st.sets(st.sampled_from([node.name for node in cluster.nodes]), min_size=1))
            left = ClusterResources(tuple(node for node in cluster.nodes if node.name not in gone), "ray")
            try:
                answer = self.make_policy().after_loss(left, request, lost)
            except InfeasibleRequestError:
                return
            if isinstance(answer, Keep):
                check(answer.wait_s >= 0, f"waits {answer.wait_s!r} seconds")
                return
            check(isinstance(answer, Resize), f"after_loss returned {answer!r}")
            check_fits(answer.layout, left)
            check(answer.layout.uses_gpu == lost.uses_gpu, "another device would end in another model")

        compare()

    def test_after_a_loss_that_leaves_enough_the_run_goes_on(self) -> None:
        """One of two equal nodes is enough for whoever asked for all."""
        nodes: tuple[Node, ...] = tuple(Node(f"node-{i}", f"10.0.0.{i + 1}", 4.0, 0.0, 2**33) for i in range(2))
        request = ScalingRequest(rows=10**8, bytes=10**10)
        lost = self.make_policy().decide(ClusterResources(nodes, "ray"), request)
        answer = self.make_policy().after_loss(ClusterResources(nodes[:1], "ray"), request, lost)
        check(isinstance(answer, Keep | Resize), f"after_loss returned {answer!r}")

    def _for_all(self, test: Callable[[ClusterResources, ScalingRequest], None]) -> None:
        @settings(deadline=None, max_examples=self.max_examples)
        @given(clusters(0, self.max_nodes), scaling_requests())
        def run(cluster: ClusterResources, request: ScalingRequest) -> None:
            test(cluster, request)

        run()

    def _decide(self, cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
        """Return the layout; Hypothesis draws again where the request is refused."""
        try:
            return self.make_policy().decide(cluster, request)
        except InfeasibleRequestError:
            assume(False)
            raise


def check_fits(layout: WorkerLayout, cluster: ClusterResources) -> None:
    """Check that a layout uses no more than a cluster has.

    Args:
        layout: What was decided.
        cluster: What there is.

    Raises:
        AssertionError: Names the node, what it has and what is used.
    """
    known = {node.name for node in cluster.nodes}
    strangers = {slot.node for slot in layout.slots} - known
    check(not strangers, f"workers on {sorted(strangers)!r}, which the cluster does not have")
    check(cluster.engine == "inline" or layout.engine == "ray", "on a cluster workers run on the cluster")
    for node in cluster.nodes:
        slots = [slot for slot in layout.slots if slot.node == node.name]
        whole = max(math.floor(node.cpus), _fewest_cpus(cluster.engine))
        for what, used, there in (
            ("CPUs", sum(slot.cpus for slot in slots), whole),
            ("GPUs", sum(slot.gpus for slot in slots), node.gpus),
            ("bytes", sum(slot.memory for slot in slots), node.memory),
        ):
            check(used <= there, f"{node.name!r} has {there:g} {what} for workers, and {used:g} are used")
        check(all(slot.cpus >= 1 for slot in slots), f"a worker on {node.name!r} has no CPU")


def _fewest_cpus(engine: Literal["inline", "ray"]) -> int:
    # This process runs on its machine whatever share of a CPU it has.
    return 1 if engine == "inline" else 0


def _totals(layout: WorkerLayout) -> tuple[int, int]:
    return layout.workers, sum(slot.cpus for slot in layout.slots)


def _numbers(error: InfeasibleRequestError) -> set[str]:
    found: Iterable[str] = re.findall(r"\d[\d,]*", f"{error.asked} {error.found}")
    return {number.replace(",", "") for number in found}


__all__ = ["ScalingKit", "check_fits"]
