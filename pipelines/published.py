"""Published numbers, to be held beside ours: Tang & Wang, *Ranking Distillation*, KDD 2018."""

COLUMNS = (
    "precision@3",
    "precision@5",
    "precision@10",
    "ndcg_tang@3",
    "ndcg_tang@5",
    "ndcg_tang@10",
    "map",
)
# The same in print.
HEADS = ("P@3", "P@5", "P@10", "N@3", "N@5", "N@10", "MAP")
# Effectiveness, a value a column. Folder below results/ -> row by role.
PUBLISHED = {
    "gowalla/fossil": {
        "teacher": (0.1299, 0.1062, 0.0791, 0.1429, 0.1270, 0.1140, 0.0866),
        "student": (0.1217, 0.0995, 0.0739, 0.1335, 0.1185, 0.1060, 0.0792),
        "distilled": (0.1355, 0.1096, 0.0808, 0.1490, 0.1314, 0.1172, 0.0874),
    },
    "gowalla/caser": {
        "teacher": (0.1408, 0.1149, 0.0856, 0.1546, 0.1376, 0.1251, 0.0958),
        "student": (0.1333, 0.1094, 0.0818, 0.1456, 0.1304, 0.1188, 0.0919),
        "distilled": (0.1458, 0.1183, 0.0878, 0.1603, 0.1423, 0.1283, 0.0969),
    },
    "foursquare/fossil": {
        "teacher": (0.0859, 0.0630, 0.0420, 0.1182, 0.1085, 0.1011, 0.0891),
        "student": (0.0766, 0.0556, 0.0355, 0.1079, 0.0985, 0.0911, 0.0780),
        "distilled": (0.0877, 0.0648, 0.0430, 0.1203, 0.1102, 0.1023, 0.0901),
    },
    "foursquare/caser": {
        "teacher": (0.0860, 0.0650, 0.0438, 0.1182, 0.1105, 0.1041, 0.0941),
        "student": (0.0830, 0.0621, 0.0413, 0.1134, 0.1051, 0.0986, 0.0874),
        "distilled": (0.0923, 0.0671, 0.0444, 0.1261, 0.1155, 0.1076, 0.0952),
    },
}
# Datasets whose check-ins are the very ones of the paper; elsewhere only gains can be held against each other.
SAME_DATA = frozenset({"gowalla"})
# Parameters in millions, teacher and student.
PARAMETERS = {
    "gowalla/fossil": (1.48, 0.64),
    "gowalla/caser": (5.58, 2.79),
    "foursquare/fossil": (1.01, 0.54),
    "foursquare/caser": (4.06, 1.64),
}
# Seconds on the authors' CPU for one list for every user, teacher and student.
CPU_SECONDS = {
    "gowalla/fossil": (9.32, 4.99),
    "gowalla/caser": (38.58, 18.63),
    "foursquare/fossil": (6.35, 3.86),
    "foursquare/caser": (23.89, 11.65),
}
