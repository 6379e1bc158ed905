"""Which sequences each year of VOT consists of.

EAO is a mean over the lengths of a year's sequences: those of another year give a
number that means nothing. Source: the lists of the data sets; the lengths are those of
the ground truth of 2017, which 2018 shares. 2016 has the sequences of 2015, annotated
anew.
"""

from collections.abc import Collection, Mapping

from siamrpn_jax.common.errors import InputError

_VOT2015 = tuple(
    """
    bag ball1 ball2 basketball birds1 birds2 blanket bmx bolt1 bolt2 book butterfly car1
    car2 crossing dinosaur fernando fish1 fish2 fish3 fish4 girl glove godfather
    graduate gymnastics1 gymnastics2 gymnastics3 gymnastics4 hand handball1 handball2
    helicopter iceskater1 iceskater2 leaves marching matrix motocross1 motocross2 nature
    octopus pedestrian1 pedestrian2 rabbit racing road shaking sheep singer1 singer2
    singer3 soccer1 soccer2 soldier sphere tiger traffic tunnel wiper
    """.split()
)

_VOT2017 = """
    ants1:325 ants3:579 bag:196 ball1:105 ball2:41 basketball:725 birds1:339 blanket:225
    bmx:76 bolt1:350 bolt2:293 book:175 butterfly:151 car1:742 conduction1:345
    crabs1:160 crossing:131 dinosaur:326 drone1:355 drone_across:147 drone_flip:113
    fernando:292 fish1:366 fish2:310 fish3:519 flamingo1:1377 frisbee:248 girl:1500
    glove:120 godfather:366 graduate:844 gymnastics1:567 gymnastics2:240 gymnastics3:118
    hand:267 handball1:377 handball2:402 helicopter:708 iceskater1:661 iceskater2:707
    leaves:63 matrix:100 motocross1:164 motocross2:61 nature:999 pedestrian1:140
    rabbit:158 racing:156 road:558 shaking:365 sheep:251 singer2:366 singer3:131
    soccer1:392 soccer2:129 soldier:138 tiger:365 traffic:191 wiper:341 zebrafish1:400
    """.split()

_VOT2019 = tuple(
    """
    agility ants1 ball2 ball3 basketball birds1 bolt1 book butterfly car1 conduction1
    crabs1 dinosaur dribble drone1 drone_across drone_flip fernando fish1 fish2
    flamingo1 frisbee girl glove godfather graduate gymnastics1 gymnastics2 gymnastics3
    hand hand2 handball1 handball2 helicopter iceskater1 iceskater2 lamb leaves marathon
    matrix monkey motocross1 nature pedestrian1 polo rabbit rabbit2 road rowing shaking
    singer2 singer3 soccer1 soccer2 soldier surfing tiger wheel wiper zebrafish1
    """.split()
)

LENGTHS: dict[str, int] = {
    name: int(length) for name, _, length in (one.partition(":") for one in _VOT2017)
}
"""Frames of the sequences of 2017 and 2018."""

NAMES: dict[str, Collection[str]] = {
    "vot2015": _VOT2015,
    "vot2016": _VOT2015,
    "vot2017": tuple(LENGTHS),
    "vot2018": tuple(LENGTHS),
    "vot2019": _VOT2019,
}
"""The 60 sequences of each year."""


def check_year(dataset: str, lengths: Mapping[str, int]) -> None:
    """Refuses the sequences of another year, or as many others as a year has.

    A part of a year, and some of the user's own, are for the user to know: they are
    reported as incomplete.

    Args:
        dataset: ``vot2018``, say.
        lengths: frames of each sequence that is there, by its name.

    Raises:
        InputError: naming what does not fit.
    """
    foreign = sorted(set(lengths) - set(NAMES[dataset]))
    others = [
        year for year, names in NAMES.items() if foreign and set(lengths) <= set(names)
    ]
    if others or (foreign and len(lengths) == len(NAMES[dataset])):
        whose = f"; they are those of {' or '.join(others)}" if others else ""
        raise InputError(
            f"--dataset {dataset}: {len(foreign)} of {len(lengths)} sequences are not "
            f"of it, such as {foreign[0]}{whose}"
        )
    if dataset in ("vot2017", "vot2018"):
        for name, length in lengths.items():
            if not foreign and length != LENGTHS[name]:
                raise InputError(
                    f"--dataset {dataset}: {name} has {length} frames, expected "
                    f"{LENGTHS[name]}"
                )
