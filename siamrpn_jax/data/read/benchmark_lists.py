"""Which sequences the one-pass benchmarks consist of, where no file of theirs says it.

Sources: OTB's site and the lists of its paper (Wu et al., "Object Tracking Benchmark",
TPAMI 2015; Table 2 and its TB-50), UAV123's ``configSeqs.m``, LaSOT's
``testing_set.txt``. A name ``Jogging-1`` is the first target of OTB's Jogging.
"""

from typing import Literal

BenchmarkName = Literal[
    "otb",
    "otb50",
    "uav123",
    "uav20l",
    "nfs",
    "lasot",
    "lasot-ext",
    "tnl2k",
    "dtb70",
    "tc128",
    "got10k-val",
    "got10k-test",
    "trackingnet-test",
]
"""The benchmarks that can be read."""

OTB50 = tuple(
    """
    Basketball Biker Bird1 BlurBody BlurCar2 BlurFace BlurOwl Bolt Box Car1 Car4
    CarDark CarScale ClifBar Couple Crowds David Deer Diving DragonBaby Dudek Football
    Freeman4 Girl Human3 Human4-2 Human6 Human9 Ironman Jump Jumping Liquor Matrix
    MotorRolling Panda RedTeam Shaking Singer2 Skating1 Skating2-1 Skating2-2 Skiing
    Soccer Surfer Sylvester Tiger2 Trellis Walking Walking2 Woman
    """.split()
)
"""TB-50: the harder half of OTB100."""

OTB100 = OTB50 + tuple(
    """
    Bird2 BlurCar1 BlurCar3 BlurCar4 Board Bolt2 Boy Car2 Car24 Coke Coupon Crossing
    Dancer Dancer2 David2 David3 Dog Dog1 Doll FaceOcc1 FaceOcc2 Fish FleetFace
    Football1 Freeman1 Freeman3 Girl2 Gym Human2 Human5 Human7 Human8 Jogging-1
    Jogging-2 KiteSurf Lemming Man Mhyang MountainBike Rubik Singer1 Skater Skater2
    Subway Suv Tiger1 Toy Trans Twinnings Vase
    """.split()
)
"""All of OTB2015: 100 targets in 98 folders."""

OTB_FRAMES = {
    "BlurCar1": (247, 988),
    "BlurCar3": (3, 359),
    "BlurCar4": (18, 397),
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
    "Tiger1": (6, 354),
}
"""Numbers of the first and last frame of the sequences that are a part of a folder."""

UAV123_CLIPS = {
    "bird1": (1, 775, 1573),
    "car1": (1, 751, 1627),
    "car16": (1, 415),
    "car6": (1, 487, 1807, 2953, 3925),
    "car8": (1, 1357),
    "group1": (1, 1333, 2515, 3925),
    "group2": (1, 907, 1771),
    "group3": (1, 1567, 2827, 4369),
    "person12": (1, 601),
    "person14": (1, 847, 1813),
    "person17": (1, 1501),
    "person19": (1, 1243, 2791),
    "person2": (1, 1189),
    "person4": (1, 1501),
    "person5": (1, 877),
    "person7": (1, 1249),
    "person8": (1, 1075),
    "truck4": (1, 577),
    "uav1": (1, 1555, 2473),
}
"""Folder -> number of the first frame of its clips _1, _2, …: bird1_2 begins at 775."""

_LASOT = """
    airplane 1 9 13 15 basketball 1 6 7 11 bear 2 4 6 17 bicycle 2 7 9 18 bird 2 3 15 17
    boat 3 4 12 17 book 3 10 11 19 bottle 1 12 14 18 bus 2 5 17 19 car 2 6 9 17
    cat 1 3 18 20 cattle 2 7 12 13 spider 14 16 18 20 coin 3 6 7 18 crab 3 6 12 18
    surfboard 12 4 5 8 cup 1 4 7 17 deer 4 8 10 14 dog 1 7 15 19 guitar 3 8 10 16
    person 1 5 10 12 pig 2 10 13 18 rubicCube 1 6 14 19 swing 10 14 17 20
    drone 13 15 2 7 pool 12 15 3 7 rabbit 10 13 17 19 racing 10 15 16 20 robot 1 19 5 8
    sepia 13 16 6 8 sheep 3 5 7 9 skateboard 16 19 3 8 tank 14 16 6 9 tiger 12 18 4 6
    train 1 11 20 7 truck 16 3 6 7 turtle 16 5 8 9 umbrella 17 19 2 9 yoyo 15 17 19 7
    zebra 10 14 16 17 elephant 1 12 16 18 goldfish 3 7 8 10 hat 1 2 5 18 kite 4 6 10 15
    motorcycle 1 3 9 18 mouse 1 8 9 17 flag 3 9 5 2 frog 3 4 20 9 gametarget 1 2 7 13
    hand 2 3 9 16 helmet 5 11 19 13 licenseplate 6 12 13 15 electricfan 1 10 18 20
    chameleon 3 6 11 20 crocodile 3 4 10 14 gecko 1 5 16 19 fox 2 3 5 20
    giraffe 2 10 13 15 gorilla 4 6 9 13 hippo 1 7 9 20 horse 1 4 12 15
    kangaroo 2 5 11 14 leopard 1 7 16 20 lion 1 5 12 20 lizard 1 3 6 13
    microphone 2 6 14 16 monkey 3 4 9 17 shark 2 3 5 6 squirrel 8 11 13 19
    volleyball 1 13 18 19
""".split()

LASOT_TEST = tuple(
    f"{_LASOT[start]}-{number}"
    for start in range(0, len(_LASOT), 5)
    for number in _LASOT[start + 1 : start + 5]
)
"""The test set of protocol II: 280 sequences, four of each class."""

LASOT_EXTENSION = tuple(
    f"{category}-{number}"
    for category in (
        *("atv", "badminton", "cosplay", "dancingshoe", "footbag", "frisbee", "jianzi"),
        *("lantern", "misc", "opossum", "paddle", "raccoon", "rhino", "skatingshoe"),
        "wingsuit",
    )
    for number in range(1, 11)
)
"""The 150 sequences of LaSOT's extension (Fan et al., IJCV 2021): 15 new classes."""
